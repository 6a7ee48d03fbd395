"""modelwright/triton/model_config_descriptor.py: ModelConfig's messages, as the installed tritonclient has them."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.grpc.model_config_pb2 import DESCRIPTOR

FILE = Path(__file__).parent.parent / "modelwright/triton/model_config_descriptor.py"
_WIDTH = 100
_HEAD = '''"""Names, numbers and types of ModelConfig's fields, as protobuf's descriptor of model_config.proto.

`make docs` writes it, from tritonclient. A comment stands before the piece of each message; all pieces are the whole.
"""

from __future__ import annotations

# fmt: off
SERIALIZED = (
'''


def pieces(file: FileDescriptorProto) -> list[tuple[str, bytes]]:
    """(what it describes, its part of the serialized file), in the order of fields, as protobuf writes them."""
    made = [("the file", FileDescriptorProto(name=file.name, package=file.package))]
    made += [(item.name, FileDescriptorProto(message_type=[item])) for item in file.message_type]
    made += [(item.name, FileDescriptorProto(enum_type=[item])) for item in file.enum_type]
    made.append(("its syntax", FileDescriptorProto(syntax=file.syntax)))
    return [(name, part.SerializeToString(deterministic=True)) for name, part in made]


def literals(part: bytes) -> list[str]:
    """Python's literals of the bytes, each on a line that is not too long."""
    lines, start = [], 0
    while start < len(part):
        end = start + 1
        while end < len(part) and len(repr(part[start : end + 1])) <= _WIDTH:
            end += 1
        lines.append(f"    {part[start:end]!r}\n")
        start = end
    return lines


def source() -> str:
    file = FileDescriptorProto()
    DESCRIPTOR.CopyToProto(file)
    lines = [_HEAD]
    for name, part in pieces(file):
        lines += [f"    # {name}\n", *literals(part)]
    return "".join([*lines, ")\n"])


if __name__ == "__main__":
    FILE.write_text(source(), encoding="utf-8")
