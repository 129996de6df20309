"""The graft in other people's training loops; each module needs its library, see there."""
