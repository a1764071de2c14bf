"""What a task asks of its worker beyond a slot, as one short text: the same for all that ask for the same.

It is a column, a part of a lane's identity and of a pool's name: `gpu0.5-mem2GiB,license=1`.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

MiB: Final = 1024 * 1024
MAX_AMOUNT: Final = 100_000.0
MAX_MEMORY: Final = 1024**5
MAX_CUSTOM: Final = 8
MAX_SHAPE: Final = 300
"""Characters of the text."""
LEAST: Final = 0.0001
"""What Ray can tell apart."""
JOINT: Final = "~"
"""Between the name of a pool and a shape; no name has it."""
_UNITS: Final = {"": 1, "B": 1, "K": 1000, "KB": 1000, "M": 1000**2, "MB": 1000**2, "G": 1000**3, "GB": 1000**3,
                 "T": 1000**4, "TB": 1000**4, "KIB": 1024, "MIB": MiB, "GIB": 1024**3, "TIB": 1024**4}  # fmt: skip
_BYTES: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]{0,3})")
_CUSTOM: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,49}")
_TEXT: Final = re.compile(r"(?:cpu([0-9.]+))?-?(?:gpu([0-9.]+))?-?(?:mem(\d+[MGT]iB))?((?:,[^,=]+=[0-9.]+)*)")
_OWN: Final = {"num_cpus": "cpus", "numCpus": "cpus", "num_gpus": "gpus", "numGpus": "gpus", "memory": "memory"}
_RESERVED: Final = frozenset({"CPU", "GPU", "memory", "object_store_memory", "cpu", "gpu", "bundle"})


class Shape(NamedTuple):
    cpus: float = 0.0
    gpus: float = 0.0
    memory: int = 0
    """Bytes."""
    custom: tuple[tuple[str, float], ...] = ()

    def resources(self) -> dict[str, float]:
        """By Ray's names."""
        own = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory), **dict(self.custom)}
        return {name: amount for name, amount in own.items() if amount}


def shape_text(asked: Mapping[str, object]) -> str:
    """The text of what is asked for, by the names that Ray's own options have; all others are custom resources. Empty
    where nothing is asked. Raises `ValueError` naming the key."""
    found: dict[str, float] = {}
    custom: dict[str, float] = {}
    memory = 0
    for name, value in asked.items():
        own = _OWN.get(name)
        if own == "memory":
            memory = _memory(value)
        elif own is not None:
            found[own] = amount(name, value, whole_above_one=own == "gpus")
        else:
            custom[custom_name(name)] = amount(name, value)
    if len(custom) > MAX_CUSTOM:
        raise ValueError(f"{len(custom)} custom resources: at most {MAX_CUSTOM} are allowed")
    named = tuple(sorted((name, number) for name, number in custom.items() if number))
    text = _text(Shape(found.get("cpus", 0.0), found.get("gpus", 0.0), memory, named))
    if len(text) > MAX_SHAPE:
        raise ValueError(f"the names of these resources are too long: {len(text)} characters, at most {MAX_SHAPE}")
    return text


def shape_of(text: str) -> Shape:
    """What a text stands for. Raises `ValueError` where no shape has it."""
    found = _TEXT.fullmatch(text)
    if found is not None:
        cpus, gpus, memory, custom = found.groups()
        parts = (part.split("=") for part in custom.split(",")[1:])
        named = tuple((name, float(number)) for name, number in parts)
        shape = Shape(float(cpus or 0), float(gpus or 0), parse_bytes(memory) if memory else 0, named)
        if _text(shape) == text:
            return shape
    raise ValueError(f"{text!r:.100} is no shape of resources")


def asked_by(text: str) -> dict[str, object]:
    """What was asked for, as a task says it."""
    shape = shape_of(text)
    memory = bytes_text(shape.memory) if shape.memory else 0
    own = {"num_cpus": shape.cpus, "num_gpus": shape.gpus, "memory": memory, **dict(shape.custom)}
    return {name: value for name, value in own.items() if value}


def amount(name: str, value: object, *, whole_above_one: bool = False) -> float:
    """Raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_AMOUNT:
        raise ValueError(f"{name} is {value!r:.100}: it must be a number from 0 to {MAX_AMOUNT:.0f}")
    number = round(float(value), 4)
    if number != value:
        raise ValueError(f"{name} is {value!r:.100}: it must be a multiple of {LEAST}")
    if whole_above_one and number > 1 and number != int(number):
        raise ValueError(f"{name} is {value!r:.100}: above 1 it must be a whole number")
    return number


def custom_name(name: str) -> str:
    """Raises `ValueError`."""
    if not _CUSTOM.fullmatch(name) or name in _RESERVED:
        raise ValueError(
            f"{name!r:.100} is no resource: known are num_cpus, num_gpus and memory, and custom ones are named"
            f" {_CUSTOM.pattern}"
        )
    return name


def parse_bytes(text: str) -> int:
    """Bytes of `2GiB` or `512MB`. Raises `ValueError`."""
    found = _BYTES.fullmatch(text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None:
        raise ValueError("must be bytes such as 2GiB, 512MiB or 1000000")
    return round(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit


def bytes_text(size: int) -> str:
    for unit, name in ((1024**4, "TiB"), (1024**3, "GiB"), (MiB, "MiB"), (1024, "KiB")):
        if size >= unit and not size % unit:
            return f"{size // unit}{name}"
    return str(size)


def number_text(number: float) -> str:
    return f"{number:.4f}".rstrip("0").rstrip(".")


def resources_text(resources: Mapping[str, float]) -> str:
    """For people: `0.5 GPU and 2GiB of memory`."""
    return " and ".join(
        f"{bytes_text(int(number))} of memory" if name == "memory" else f"{number_text(number)} {name}"
        for name, number in resources.items()
    )


def pool_name(pool: str, shape: str) -> str:
    """The pool for the tasks of a shape that belong to `pool`; also the name of their part of a queue."""
    return f"{pool}{JOINT}{shape}" if shape else pool


def base_and_shape(pool: str) -> tuple[str, str]:
    base, _, shape = pool.partition(JOINT)
    return base, shape


def _memory(value: object) -> int:
    if isinstance(value, str):
        size = parse_bytes(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError(f"memory is {value!r:.100}: it must be bytes such as 2GiB")
    if not 0 <= size <= MAX_MEMORY:
        raise ValueError(f"memory is {value!r:.100}: it must be from 0 to {bytes_text(MAX_MEMORY)}")
    # In whole MiB: shapes that differ by less are one.
    return -(-size // MiB) * MiB


def _text(shape: Shape) -> str:
    parts = [
        f"cpu{number_text(shape.cpus)}" if shape.cpus else "",
        f"gpu{number_text(shape.gpus)}" if shape.gpus else "",
        f"mem{bytes_text(shape.memory)}" if shape.memory else "",
    ]
    return "-".join(filter(None, parts)) + "".join(f",{name}={number_text(number)}" for name, number in shape.custom)
