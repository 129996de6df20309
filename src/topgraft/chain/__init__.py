"""Networks as chains of blocks: finding, proving and running the parts."""

from topgraft.chain.block import Block, Refused
from topgraft.chain.chain import Chain
from topgraft.chain.point import Point
from topgraft.chain.replay import Segment
from topgraft.chain.state import Inputs, Pool, State

__all__ = ["Block", "Chain", "Inputs", "Point", "Pool", "Refused", "Segment", "State"]
