"""Spam or not, from the words of a message: strings go in, and strings come out."""

from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

MESSAGES = {
    "win a free prize now": "spam",
    "free money click here": "spam",
    "you won the lottery claim your prize": "spam",
    "cheap pills free shipping": "spam",
    "the meeting moved to ten": "ham",
    "see you at lunch tomorrow": "ham",
    "please review the attached report": "ham",
    "the build is green again": "ham",
}


def fitted():
    return make_pipeline(TfidfVectorizer(token_pattern="[a-z]+"), LogisticRegression()).fit(
        list(MESSAGES), list(MESSAGES.values())
    )


if __name__ == "__main__":
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import StringTensorType

    # Without a locale the ONNX operator takes en_US, which containers do not have.
    options = {LogisticRegression: {"zipmap": False}, TfidfVectorizer: {"locale": "C.UTF-8"}}
    inputs = [("text", StringTensorType([None, 1]))]
    model = to_onnx(fitted(), initial_types=inputs, options=options, target_opset=21)
    Path("model.onnx").write_bytes(model.SerializeToString())
