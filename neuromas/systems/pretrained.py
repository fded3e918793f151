"""Hugging Face language models from a folder or from the hub.

Only safetensors are read, nothing is unpickled, and no code that comes with a model is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from neuromas.errors import Corrupt, InvalidInput, NotFound
from neuromas.files import name_from, sha256_file, sha256_folder
from neuromas.schema.system import LanguageModelCard
from neuromas.systems.huggingface import HuggingFace
from neuromas.systems.system import DRAWING, EMBEDDING
from neuromas.systems.words import import_transformers

CARD = "neuromas.json"
"""File beside a language model's weights that says which task it does, and in which words."""


def load_huggingface(
    path: str | Path,
    *,
    layer: str = EMBEDDING,
    device: str | torch.device | None = None,
    device_map: Any = None,
    dtype: str | None = None,
    task: str | None = None,
    prompt: str | None = None,
    words: Mapping[str, str] | None = None,
    name: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> HuggingFace:
    """A causal language model from a local folder or from the hub, as a system.

    Only safetensors are read, nothing is unpickled, and no code that comes with a model is run.

    Parameters
    ----------
    path : path-like
        A folder that ``save_pretrained`` wrote, or a name on the hub such as ``"deepseek-ai/DeepSeek-R1-Distill-Llama-8B"``.
        A file ``neuromas.json`` in the folder sets task, prompt, words, name and dtype; arguments override it.
    layer : str
        Dotted name of a module, such as ``model.layers.1``, or ``embedding``.
    device : str or torch.device, optional
        Device of a model that has no `device_map`.
    device_map : str or mapping, optional
        As in ``from_pretrained``, such as ``"auto"``.
    dtype : str, optional
        Type of the weights in memory: ``"bfloat16"`` (default), ``"float32"``, ``"float16"``, or ``"auto"`` for the type that
        they are saved in.
    task, prompt : str, optional
        By default the in-context task and the paper's prompt.
    words : mapping of str to str, optional
        Token of the task → its text; by default a space and the token itself.
    name : str, optional
        Name of the system; by default the last part of `path`.
    revision : str, optional
        Branch, tag or commit on the hub.
    local_files_only : bool
        Use only files that the hub left on this disk.

    Returns
    -------
    HuggingFace

    Raises
    ------
    NotFound
        There is no such folder, name or layer, or the hub cannot be reached.
    Corrupt
        The folder has no weights, or weights that are damaged, incomplete, or do not fit its config.
    InvalidInput
        The weights would have to be unpickled; there is no such dtype; as `HuggingFace`.
    """
    library = import_transformers()
    folder = Path(path)
    local = folder.is_dir()
    if local:
        _check_folder(folder)
    elif folder.is_absolute() or str(path).startswith((".", "~")) or str(path).count("/") > 1:
        raise NotFound(f"no folder {path}: expected one with config.json and safetensors", kind="unknown_system")
    card = LanguageModelCard()
    if (folder / CARD).is_file():
        card = LanguageModelCard.parse((folder / CARD).read_bytes(), str(folder / CARD))
    chosen = {"task": task, "prompt": prompt, "words": None if words is None else dict(words)}
    card = card.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    source = {"revision": revision, "local_files_only": local or local_files_only, "trust_remote_code": False}
    kind = _dtype(dtype or card.dtype or "bfloat16")
    # transformers replaces torch's own initialisers while it loads, for all threads
    with _faults(str(path), local), DRAWING:
        tokenizer = library.AutoTokenizer.from_pretrained(str(path), **source)
        model, loading = library.AutoModelForCausalLM.from_pretrained(
            str(path), dtype=kind, device_map=device_map, use_safetensors=True, output_loading_info=True, **source
        )
    missing = sorted(loading.get("missing_keys") or ())
    if missing:
        raise Corrupt(
            f"{path}: {len(missing)} of its model's weights are missing: {', '.join(missing[:5])}{', …' * (len(missing) > 5)}",
            kind="missing_weights",
        )
    commit = revision or getattr(model.config, "_commit_hash", None)
    system = HuggingFace(
        model,
        tokenizer,
        card,
        layer=layer,
        name=name or card.name or _as_name(folder.resolve().name if local else str(path).rsplit("/", 1)[-1]),
        source=str(path) + (f" at {commit}" if commit else ""),
        weights_sha256=_hash(folder) if local else None,
    )
    return system if device is None or device_map is not None else system.to(device)


def is_huggingface(folder: Path) -> bool:
    """Whether the config in `folder` is that of a Hugging Face model."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(config, dict) and ("architectures" in config or "model_type" in config)


def _check_folder(folder: Path) -> None:
    """Raise unless `folder` holds a config and safetensors."""
    if not (folder / "config.json").is_file():
        raise NotFound(f"no language model in {folder}: it has no config.json", kind="unknown_system")
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for ending in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{ending}"))
    if pickled:
        raise InvalidInput(
            f"{folder} has its weights in {', '.join(pickled[:3])}. These would have to be unpickled, which can run any code;"
            " expected safetensors. If you trust the files, convert them with save_pretrained",
            kind="pickle_refused",
        )
    raise Corrupt(f"{folder} has a config.json but no weights: expected safetensors beside it", kind="missing_weights")


def _dtype(name: str) -> Any:
    dtype = getattr(torch, name, None)
    if name == "auto" or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype or name
    raise InvalidInput(
        f"expected dtype 'bfloat16', 'float16', 'float32', 'float64' or 'auto', got {name!r}", kind="invalid_option"
    )


@contextmanager
def _faults(path: str, local: bool) -> Iterator[None]:
    """Turn errors of other libraries into ours: one line, and what can be done."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except ImportError as error:
        raise InvalidInput(f'{path}: {_line(error)} (pip install "neuromas[hf]")', kind="missing_package") from error
    except SafetensorError as error:
        raise Corrupt(f"{path}: damaged weights: {_line(error)}", kind="not_safetensors") from error
    except RuntimeError as error:
        raise Corrupt(f"{path}: weights do not fit the config: {_line(error)}", kind="weights_mismatch") from error
    except OSError as error:
        if local:
            raise Corrupt(f"{path}: {_line(error)}", kind="missing_weights") from error
        raise NotFound(
            f"no language model {path!r}: it is not a folder here, and the hub does not have it: {_line(error)}",
            kind="unknown_system",
        ) from error
    except (ValueError, KeyError) as error:
        raise InvalidInput(
            f"{path} is not a causal language model: {_line(error)}", kind="not_a_language_model"
        ) from error


def _as_name(text: str) -> str:
    """`text` as the name of a system, which ends with a letter or digit. Names identify fits: this rule must stay."""
    return name_from(re.sub(r"[^A-Za-z0-9]+$", "", text), "language-model")


def _line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _hash(folder: Path) -> str:
    """SHA-256 of the one weight file, or of the names and hashes of several."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return sha256_file(files[0])
    return sha256_folder(folder, "*.safetensors")
