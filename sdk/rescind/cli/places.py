"""Where in a file of JSON or YAML the parts of a document stand, so that a fault is said with its line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import yaml

from rescind.wire import Fault

PARTS_MAX = 64
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def located(faults: list[Fault], document: str) -> list[Fault]:
    """The faults, each with the line of what it is about before its detail, where `document` is a file that can be read.

    A part that is missing stands where what lacks it begins.
    """
    try:
        root = yaml.compose(Path(document).read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return faults
    if root is None:
        return faults
    return [
        msgspec.structs.replace(fault, detail=f"{document}:{line_of(root, fault.pointer)}: {fault.detail}") for fault in faults
    ]


def line_of(root: yaml.Node, pointer: str) -> int:
    """The line, from 1, of the innermost part on the way of the pointer (RFC 6901) that is there.

    >>> line_of(yaml.compose("steps:\\n- name: a\\n- name: b\\n", Loader=yaml.SafeLoader), "/steps/1/key")
    3
    """
    node, line = root, root.start_mark.line
    for part in pointer.split("/")[1:PARTS_MAX]:
        name = part.replace("~1", "/").replace("~0", "~")
        found = _child(node, name)
        if found is None:
            break
        line, node = found
    return int(line) + 1


def _child(node: yaml.Node, name: str) -> tuple[int, yaml.Node] | None:
    """Where a part of this name begins, and the part."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == name:
                return key.start_mark.line, value
    if isinstance(node, yaml.SequenceNode) and name.isdecimal() and int(name) < len(node.value):
        child = node.value[int(name)]
        return child.start_mark.line, child
    return None
