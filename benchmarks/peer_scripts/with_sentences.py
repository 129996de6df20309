"""What people do with a few thousand texts: sentence-transformers' vectors, then logistic regression.

    python with_sentences.py FOLDER TABLE

The folder is a Hugging Face one; the table has the columns text and label. Prints one line of JSON: the
cross-validated score, and the number of texts.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Pooling, Transformer
from sklearn.linear_model import LogisticRegressionCV


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--penalties", type=int, default=10)
    asked = parser.parse_args()
    with asked.table.open(encoding="utf-8", newline="") as opened:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(opened)]
    words = Transformer(str(asked.folder))
    model = SentenceTransformer(modules=[words, Pooling(words.get_word_embedding_dimension())], device="cpu")
    x = model.encode([text for text, _ in rows], batch_size=32, show_progress_bar=False)
    y = np.array([label for _, label in rows])
    probe = LogisticRegressionCV(
        Cs=np.logspace(-5, 1, asked.penalties), cv=asked.folds, max_iter=1000, n_jobs=2, scoring="accuracy"
    ).fit(x, y)
    scores = np.mean([np.asarray(s) for s in probe.scores_.values()], axis=0)
    print(json.dumps({"texts": len(rows), "score": float(scores.mean(0).max())}))


if __name__ == "__main__":
    main()
