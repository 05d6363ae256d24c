"""Judge a T5's folder by the tensors that it stores, and build the model from them.

transformers 5 writes `tie_word_embeddings: true` for every T5 that it saves, also for v1.1 and flan, whose
output layer is a table of its own. So the flag decides nothing where tensors can: the output layer is tied to
the embeddings where no other table is stored. Its inputs are scaled as `scale_decoder_outputs` says, which
transformers 5 writes; without it a tied layer's are (original T5) and an untied one's are not (v1.1, flan).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cotdistill.common.errors import UserError, describe_error
from cotdistill.common.files import read_json
from cotdistill.students.stored import FLOATS, Stored

if TYPE_CHECKING:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

SHARED, OUTPUT = "shared.weight", "lm_head.weight"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""other names of SHARED"""
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
"""a tensor of the original checkpoints that no T5 reads"""
SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads",
         "relative_attention_num_buckets", "relative_attention_max_distance")  # fmt: skip
READ = (*SIZES, "dropout_rate", "layer_norm_epsilon", "feed_forward_proj", "dense_act_fn", "is_gated_act",
        "pad_token_id", "eos_token_id", "decoder_start_token_id")  # fmt: skip
"""what is read of a config.json: the rest says how others use the model, or how to run code of its own"""


class Checkpoint:
    """A T5's folder, checked by config and headers: sizes, names, shapes, types, the output layer.

    Raises UserError for anything else than one whole T5 of plain weights.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Read config and headers. name: what messages call the student."""
        self.folder, self.name = folder, name
        with self._named():
            found = _read_config(folder)
            self.stored = Stored(folder)
            self.config: T5Config = _fill_config(folder / "config.json", found, list(self.stored.headers))
            self._check_layers()
            self._model = _make_empty(self.config, folder)
            self._check_tensors(found)
            self.tied = self._is_tied()
            scaled = found.get("scale_decoder_outputs")
            plain = self.tied and found.get("tie_word_embeddings") is not False
            self.config.scale_decoder_outputs = plain if scaled is None else scaled

    def check_values(self) -> None:
        """Raise UserError that names the first weight which is not finite. Reads one tensor at a time."""
        import torch

        with self._named():
            for name in self.stored.headers:
                finite = torch.isfinite(self.stored.read(name))
                if not finite.all():
                    raise UserError(
                        f"{self.stored.headers[name].file}: '{name}' has {int((~finite).sum())} values that "
                        "are NaN or infinite; expected finite weights"
                    )

    def build(self) -> T5ForConditionalGeneration:
        """Return the model with a copy of the stored weights, in float32. Call it once."""
        import torch

        model, table = self._model, self._find_table()
        with self._named(), torch.no_grad():
            shared = torch.nn.Parameter(self._copy(table))
            for name in model.state_dict():
                if name not in (SHARED, OUTPUT, *COPIES):
                    module, _, leaf = name.rpartition(".")
                    setattr(model.get_submodule(module), leaf, torch.nn.Parameter(self._copy(name)))
            for module in (model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens):
                module.weight = shared
            model.lm_head.weight = shared if self.tied else torch.nn.Parameter(self._copy(OUTPUT))
            if not self.tied:  # as from_pretrained does, so that nothing ties them later
                model.all_tied_weights_keys.pop(OUTPUT, None)
        return model.eval()

    def _copy(self, name: str) -> torch.Tensor:
        import torch

        return self.stored.read(name).to(torch.float32, copy=True).contiguous()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Have errors name the student."""
        try:
            yield
        except UserError as error:
            raise UserError(f"student '{self.name}': {error}") from error
        except OSError as error:
            where = error.filename or self.folder
            raise UserError(
                f"student '{self.name}': cannot read {where}: {error.strerror or error}"
            ) from error

    def _check_layers(self) -> None:
        """Check the numbers of layers, before a model of them is built."""
        for part, number in (
            ("encoder", self.config.num_layers),
            ("decoder", self.config.num_decoder_layers),
        ):
            blocks = {name.split(".")[2] for name in self.stored.headers if name.startswith(f"{part}.block.")}
            if part == "decoder" and not blocks:
                raise UserError(f"{self.folder} stores an encoder alone; expected a T5 with its decoder")
            if len(blocks) != number:
                raise UserError(
                    f"{self.folder / 'config.json'}: {number} layers in the {part}; "
                    f"the checkpoint stores {len(blocks)}"
                )

    def _check_tensors(self, found: dict[str, Any]) -> None:
        headers = self.stored.headers
        expected = {name: tuple(value.shape) for name, value in self._model.state_dict().items()}
        missing = [name for name in expected if name not in headers and name not in (OUTPUT, *COPIES, SHARED)]
        separate = found.get("tie_word_embeddings") is False or found.get("scale_decoder_outputs") is False
        if not any(name in headers for name in (SHARED, *COPIES)) and (separate or OUTPUT not in headers):
            missing.append(SHARED)
        if found.get("tie_word_embeddings") is False and OUTPUT not in headers:
            missing.append(OUTPUT)  # the only tensor of which the flag alone tells that it should be there
        if missing:
            raise UserError(f"checkpoint lacks {len(missing)} weights, first '{missing[0]}'")
        for name, header in headers.items():
            if name == UNUSED:
                continue
            if header.kind not in FLOATS:
                raise UserError(
                    f"{header.file}: '{name}' is of type {header.kind} (a quantised checkpoint?); "
                    f"expected {', '.join(FLOATS)}"
                )
            if name not in expected:
                raise UserError(f"{header.file}: '{name}' is no tensor of the T5 that config.json describes")
            if header.shape != expected[name]:
                raise UserError(
                    f"{header.file}: '{name}' has shape {list(header.shape)}; "
                    f"expected {list(expected[name])} by config.json"
                )

    def _find_table(self) -> str:
        """Return the name under which the embeddings are stored."""
        return next(name for name in (SHARED, *COPIES, OUTPUT) if name in self.stored.headers)

    def _is_tied(self) -> bool:
        """Whether no output layer is stored that differs from the embeddings."""
        import torch

        shared = self.stored.read(self._find_table())
        same = {name: torch.equal(self.stored.read(name), shared)
                for name in (OUTPUT, *COPIES) if name in self.stored.headers}  # fmt: skip
        if other := [name for name in COPIES if not same.get(name, True)]:
            raise UserError(
                f"'{other[0]}' differs from '{SHARED}'; expected one table of embeddings, as T5's"
            )
        return same.get(OUTPUT, True)


def _read_config(folder: Path) -> dict[str, Any]:
    """Return what config.json says, where it is that of a plain T5."""
    if (folder / "adapter_config.json").exists():
        raise UserError(
            f"{folder} is an adapter (LoRA), no whole model; expected a T5: merge it into its base "
            "(peft's merge_and_unload) and save that"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: expected a T5 checkpoint folder")
    found = read_json(path)
    kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != "t5":
        raise UserError(f"{path} is a model of type {kind!r}; expected 't5'")
    if found.get("quantization_config") is not None:
        raise UserError(f"{path}: quantization_config: a quantised checkpoint; expected plain weights")
    for flag in ("tie_word_embeddings", "scale_decoder_outputs"):
        if not isinstance(found.get(flag), bool | None):
            raise UserError(f"{path}: {flag}: found {found[flag]!r:.40}; expected true or false")
    return dict(found)


def _fill_config(path: Path, found: dict[str, Any], names: list[str]) -> T5Config:
    """Return the config with what it leaves out: T5's defaults, the activation by the stored layers."""
    from transformers import T5Config

    known = {key: found[key] for key in READ if found.get(key) is not None}
    for key, names_of in T5Config.attribute_map.items():
        if found.get(key) is not None:
            known.setdefault(names_of, found[key])
    if nulls := [key for key in READ if key in found and found[key] is None and key in _NEEDED]:
        raise UserError(f"{path}: {nulls[0]}: found null; expected {_NEEDED[nulls[0]]}")
    gated = any(name.endswith(".wi_0.weight") for name in names)
    known.setdefault("feed_forward_proj", "gated-gelu" if gated else "relu")
    known.setdefault("pad_token_id", 0)
    known.setdefault("eos_token_id", 1)
    known.setdefault("decoder_start_token_id", known["pad_token_id"])
    try:
        config = T5Config(**known)
    except Exception as error:  # noqa: BLE001 transformers checks each field in its own way
        why = " ".join(str(error).split())
        raise UserError(f"{path}: {why[:200]}") from error
    _check_ranges(path, config)
    return config


_NEEDED = {"dropout_rate": "a number from 0 to below 1", "layer_norm_epsilon": "a number above 0",
           "d_model": "a whole number", "vocab_size": "a whole number"}  # fmt: skip
"""settings of a config.json that may be left out, but not null"""


def _check_ranges(path: Path, config: T5Config) -> None:
    def refuse(key: str, expected: str) -> None:
        raise UserError(f"{path}: {key}: found {getattr(config, key)!r:.40}; expected {expected}")

    for key in SIZES:
        value = getattr(config, key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            refuse(key, "a whole number from 1")
    if not 0 <= config.dropout_rate < 1:
        refuse("dropout_rate", _NEEDED["dropout_rate"])
    if not 0 < config.layer_norm_epsilon < 1:
        refuse("layer_norm_epsilon", "a number above 0, below 1")
    if config.relative_attention_max_distance <= config.relative_attention_num_buckets // 2:
        refuse("relative_attention_max_distance", "more than half of relative_attention_num_buckets")
    for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        value = getattr(config, key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < config.vocab_size:
            refuse(key, f"the id of a token, 0 to {config.vocab_size - 1}")


def _make_empty(config: T5Config, folder: Path) -> T5ForConditionalGeneration:
    """Return the model without memory for its weights, for names and shapes."""
    import torch
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    try:
        with torch.device("meta"):
            return T5ForConditionalGeneration(config)
    except Exception as error:  # noqa: BLE001 an unknown activation, sizes that overflow
        raise UserError(
            f"{folder / 'config.json'} describes no T5 that can be built ({describe_error(error)})"
        ) from error
