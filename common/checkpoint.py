"""Checkpoints: folders of plain data and tensors that are complete or absent, checked before use and never executed.

    step_000012345/
      tree.json             the tree; tensors and arrays are references into the next file
      tensors.safetensors   every tensor and array, named by its path in the tree
      manifest.json         kind and versions; size and SHA-256 of the files above and of external ones
      manifest.sha256       SHA-256 of the manifest, as `sha256sum --check` reads it

A kill at any instant leaves the old complete checkpoint or the new one; what a killed write left behind is removed by
the next one. One process at a time may save into the same folder of `step_*` checkpoints.

Big data that persists itself (replay segments) stays outside: a checkpoint lists such external files with their size
and SHA-256, and is refused where they do not match. Files that `referenced` no longer lists may be deleted.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from importlib.metadata import version as installed_version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from presage.common import atomic_folder
from presage.common.tree import Tree, TreeError, put_together, take_apart

FORMAT = 1
"""version of the layout described above; other versions are refused"""

_TREE, _TENSORS, _MANIFEST, _SEAL = "tree.json", "tensors.safetensors", "manifest.json", "manifest.sha256"
_STEP = re.compile(r"step_(\d+)")
_log = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read or restored; the message says what is wrong, where, and what to do."""


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """What a file must be for a checkpoint that lists it to be valid."""

    bytes: int
    """its size"""
    sha256: str
    """hexadecimal digest of its content"""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a checkpoint says about itself."""

    format: int
    """`FORMAT` of the presage that wrote it"""
    kind: str
    """what the tree is, such as "run"; named by the caller of `save`"""
    version: int
    """version of that kind's tree; counted by the caller of `save`"""
    written_by: dict[str, str]
    """versions of presage, torch, numpy and Python; for information, never a reason to refuse"""
    files: dict[str, FileRecord]
    """the checkpoint's own files"""
    external: dict[str, FileRecord]
    """files outside, by their path relative to the checkpoint's folder"""


def step_folder(checkpoints: Path | str, step: int) -> Path:
    """Where the checkpoint of env step `step` lies in a folder of checkpoints."""
    if step < 0:
        raise CheckpointError(f"a checkpoint's step must be >= 0, got {step}")
    return Path(checkpoints) / f"step_{step:09d}"


def save(folder: Path | str, tree: Tree, *, kind: str, version: int, external: Iterable[Path | str] = ()) -> None:
    """Write `tree` as a checkpoint, replacing an earlier checkpoint of the same name in one step.

    Round trips are exact to the bit: NaN payloads, -0.0, integers of any length, tuples apart from lists, every dtype.
    Tensors are stored dense and by value: what shared storage is independent after loading, gradients are dropped.

    Args:
        folder: the checkpoint's own folder, such as `step_folder(checkpoints, step)`.
        tree: plain data, arrays and tensors; dict keys are strings or integers.
        kind: what the tree is, and `version`, of that kind's tree: `load` compares both if asked to.
        external: immutable files that the tree counts on. Their digest is taken once per process.

    Raises:
        CheckpointError: the tree or `folder` holds something else, an external file is missing, or the disk refuses.
    """
    folder = Path(os.path.abspath(folder))
    try:
        data, tensors = take_apart(tree)
    except TreeError as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}") from error
    if os.path.lexists(folder) and not _replaceable(folder):
        raise CheckpointError(f"{folder} exists and is not a checkpoint, so it is not replaced; choose another folder")
    try:
        listed = {_relative(path, folder): _record_immutable(path) for path in map(Path, external)}
        with atomic_folder.replacing(folder, siblings=_STEP) as writing:
            (writing / _TREE).write_text(json.dumps(data, allow_nan=False, separators=(",", ":")), encoding="ascii")
            save_file(tensors, writing / _TENSORS)
            manifest = Manifest(
                format=FORMAT,
                kind=kind,
                version=version,
                written_by=_versions(),
                files={name: _record(writing / name) for name in (_TREE, _TENSORS)},
                external=listed,
            )
            text = json.dumps(asdict(manifest), indent=1)
            (writing / _MANIFEST).write_text(text, encoding="ascii")
            (writing / _SEAL).write_text(_seal(text.encode()), encoding="ascii")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot write checkpoint {folder}: {error}; an earlier one of that name is unharmed"
        ) from error


def load(folder: Path | str, *, kind: str | None = None, version: int | None = None) -> Tree:
    """The tree that `save` wrote, on the CPU, after every file was verified; nothing in it is executed.

    Args:
        folder: a checkpoint's own folder.
        kind: what the caller can read, and `version`, of it; None accepts any.

    Raises:
        CheckpointError: not a checkpoint, of another format, kind or version, or damaged.
    """
    folder = _present(folder)
    manifest = verify(folder)
    for what, wanted, found in (("kind", kind, manifest.kind), ("version", version, manifest.version)):
        if wanted is not None and wanted != found:
            raise CheckpointError(
                f"checkpoint {folder} is of {what} {found!r}, expected {wanted!r}; it was written by presage "
                f"{manifest.written_by.get('presage', 'of unknown version')}: load it with what wrote it"
            )
    try:
        data = json.loads((folder / _TREE).read_bytes())
        # clones, since what is loaded are windows into one mapping of the whole file
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / _TENSORS).items()}
        return put_together(data, tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {folder} has the right checksums but cannot be decoded ({type(error).__name__}: {error}); "
            "unless memory ran out, it was not written by presage: use another one"
        ) from error


def verify(folder: Path | str) -> Manifest:
    """Check every file of a checkpoint, external ones too, against its manifest, which is returned.

    Raises:
        CheckpointError: names the first file that is missing, truncated or changed.
    """
    folder = _present(folder)
    manifest = read_manifest(folder)
    _check_sizes(folder, manifest)
    for name, record in (manifest.files | manifest.external).items():
        try:
            found = _record(folder / name)
        except OSError as error:
            raise _damaged(folder, name, f"it cannot be read ({error})") from error
        if found != record:
            raise _damaged(folder, name, "its SHA-256 differs from the manifest's")
    return manifest


def read_manifest(folder: Path | str) -> Manifest:
    """What a checkpoint says about itself; checks the manifest alone.

    Raises:
        CheckpointError: not a checkpoint, of another format, or its manifest is damaged.
    """
    folder = _present(folder)
    try:
        if not (folder / _MANIFEST).is_file():
            raise CheckpointError(
                f"{folder} is not a checkpoint, or a damaged one: it has no {_MANIFEST}; "
                "give a complete folder written by presage, such as RUN/checkpoints/step_000012345"
            )
        text = (folder / _MANIFEST).read_bytes()
        if not (folder / _SEAL).is_file():
            raise _damaged(folder, _SEAL, "it is missing")
        if (folder / _SEAL).read_bytes() != _seal(text).encode():
            raise _damaged(folder, _MANIFEST, f"its SHA-256 is not the one in {_SEAL}")
    except OSError as error:
        raise CheckpointError(f"cannot read checkpoint {folder}: {error}; check its permissions and disk") from error
    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise CheckpointError(
                f"checkpoint {folder} is in format {data['format']!r}, this presage reads format {FORMAT}; "
                f"load it with presage {data.get('written_by', {}).get('presage', 'of the version that wrote it')}"
            )
        for part in ("files", "external"):
            data[part] = {str(name): FileRecord(**record) for name, record in data[part].items()}
        manifest = Manifest(**data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(folder, _MANIFEST, f"it does not read as one ({type(error).__name__}: {error})") from error
    if manifest.files.keys() != {_TREE, _TENSORS}:
        raise _damaged(folder, _MANIFEST, f"it lists {sorted(manifest.files)} instead of {[_TENSORS, _TREE]}")
    return manifest


def latest(checkpoints: Path | str) -> Path | None:
    """The newest `step_*` checkpoint in a folder that verifies, None where there is none; damaged ones are logged."""
    for folder in _newest_first(checkpoints):
        try:
            verify(folder)
        except CheckpointError as error:
            _log.warning("passing over a checkpoint: %s", error)
        else:
            return folder
    return None


def prune(checkpoints: Path | str, *, keep: int = 2) -> list[Path]:
    """Delete all `step_*` checkpoints that are older than the newest `keep` complete ones; returns those deleted.

    Complete means that all files are there in their full size; their contents are not read again.
    """
    if keep < 1:
        raise CheckpointError(f"prune must keep at least one checkpoint, got keep={keep}")
    complete, deleted = 0, []
    for folder in _newest_first(checkpoints):
        if complete >= keep:
            atomic_folder.remove(folder)
            deleted.append(folder)
            continue
        try:
            _check_sizes(_present(folder), read_manifest(folder))
            complete += 1
        except CheckpointError as error:
            _log.warning("not counted among the checkpoints to keep: %s", error)
    return deleted


def referenced(checkpoints: Path | str) -> set[Path]:
    """Resolved paths of all external files that any `step_*` checkpoint in a folder lists: those must be kept."""
    found = set()
    for folder in _newest_first(checkpoints):
        for copy in atomic_folder.copies(folder):
            try:
                found |= {(copy / name).resolve() for name in read_manifest(copy).external}
            except CheckpointError as error:  # it cannot be loaded, so it needs no files
                _log.warning("its external files are not kept: %s", error)
    return found


def _newest_first(checkpoints: Path | str) -> Iterator[Path]:
    matches = filter(None, map(_STEP.fullmatch, atomic_folder.names(Path(checkpoints))))
    for match in sorted(matches, key=lambda match: (int(match[1]), match[0]), reverse=True):
        yield Path(checkpoints) / match[0]


def _present(folder: Path | str) -> Path:
    folder = Path(os.path.abspath(folder))
    found = atomic_folder.present(folder)
    if found is None:
        reason = "that is a file" if folder.exists() else "it does not exist"
        raise CheckpointError(
            f"no checkpoint folder at {folder}: {reason}; give one such as RUN/checkpoints/step_000012345"
        )
    return found


def _replaceable(folder: Path) -> bool:
    """Whether a folder is a checkpoint or empty, so that nobody loses anything else by its replacement."""
    return folder.is_dir() and ((folder / _MANIFEST).is_file() or not any(folder.iterdir()))


def _relative(path: Path, folder: Path) -> str:
    """The way from a checkpoint's folder to an external file once all links are followed, as the system goes it."""
    return os.path.relpath(path.resolve(), folder.parent.resolve() / folder.name)


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(bytes=os.fstat(file.fileno()).st_size, sha256=file_digest(file, "sha256").hexdigest())


def _record_immutable(path: Path) -> FileRecord:
    """The record of an external file, which is synced to disk; taken again only if the file looks changed."""
    if not path.is_file():
        raise CheckpointError(f"the external file {path} does not exist; write it before the checkpoint that lists it")
    status = path.stat()
    return _record_once(path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _record_once(path: Path, *_status: int) -> FileRecord:
    atomic_folder.sync(path)
    atomic_folder.sync(path.parent)
    return _record(path)


def _check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raise CheckpointError unless all files that the manifest lists are there in their full size."""
    for name, record in (manifest.files | manifest.external).items():
        path = folder / name
        try:
            if not path.is_file():
                raise _damaged(folder, name, "it is missing")
            size = path.stat().st_size
        except OSError as error:
            raise _damaged(folder, name, f"it cannot be read ({error})") from error
        if size != record.bytes:
            raise _damaged(folder, name, f"it has {size} bytes instead of {record.bytes}")


def _damaged(folder: Path, name: str, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {folder} is damaged at {name}: {what}; use another checkpoint or a backup")


def _seal(manifest: bytes) -> str:
    return f"{sha256(manifest).hexdigest()}  {_MANIFEST}\n"


def _versions() -> dict[str, str]:
    return {
        "presage": installed_version("presage"),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
