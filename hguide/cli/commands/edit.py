"""`hguide edit`: zero-shot editing of a picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hguide.cli.lenders import add_lenders
from hguide.cli.options import add_model, add_sampling
from hguide.cli.parser import add_flag
from hguide.errors import ConfigError
from hguide.lists import Listed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from hguide.cli.settings import Settings
    from hguide.generator import ScaleGenerator
    from hguide.sampling import Sampler

HELP = """
Edits a picture with a model that has an encoder (VAR, HART, Infinity, Switti, VQ-Diffusion): what lies in the box is
made anew and the rest kept (--inpaint, the default), or the box is kept and the rest made anew (--outpaint); or the
first steps are the picture's and those after are drawn (--prefix). With --class the new part is of that class or
prompt; the same as the picture's continues it, another one edits it. The picture is cut to its centre and resized to
the model's size. Writes input.png, one PNG per seed, and sheet.png with all of them.
"""
EXAMPLES = """
hguide edit photo.jpg --box 0.25,0.25,0.75,0.75 --class forest --seeds 0-3
hguide edit photo.jpg --box 0,0,1,0.5 --outpaint --class beach --guidance "cfg(2) | ssg(0.5)"
hguide edit photo.jpg --prefix 4 --class harbor
"""

BOX = "0.25,0.25,0.75,0.75"


def add_arguments(parser: Any) -> None:
    """Options of `hguide edit`."""
    parser.add_argument("image", type=str, help="picture of any size.")
    add_model(parser)
    parser.add_argument(
        "--box", type=str | list[float] | None, default=None, help=f"y0,x0,y1,x1 in parts of the picture; {BOX}."
    )
    add_flag(parser, "inpaint", False, "make the box anew and keep the rest; so it is without --outpaint.")
    add_flag(parser, "outpaint", False, "keep the box and make the rest anew.")
    parser.add_argument("--prefix", type=int, default=0, help="no box: this many first steps are the picture's.")
    parser.add_argument(
        "--class", type=int | str | None, default=None, dest="label", help="of the new part, or a prompt; none."
    )
    parser.add_argument("--guidance", type=str, default="cfg(3.0) | ssg(0.5)", help="text form; none for none.")
    parser.add_argument("--seeds", type=Listed, default="0-3", help="one edit each.")
    parser.add_argument("--out", type=str, default="edits", help="folder.")
    add_flag(parser, "overwrite", False, "replace files of an earlier edit.")
    add_lenders(parser)
    add_sampling(parser, batch_size=16)


def run(options: Any) -> None:
    """Encode, keep, sample, write."""
    from hguide import lists
    from hguide.cli.lenders import lender_paths, lenders_of
    from hguide.cli.options import load_model, sampler_of, writable_folder
    from hguide.cli.settings import Settings
    from hguide.guidance import parse
    from hguide.images import read_image, to_uint8, write_png
    from hguide.plan import plan
    from hguide.provenance import device_facts, model_hash, sampler_facts, versions

    if (options.inpaint, options.outpaint, options.prefix != 0).count(True) > 1:
        raise ConfigError("give one of --inpaint, --outpaint and --prefix, not two.")
    if options.prefix and options.box is not None:
        raise ConfigError("--prefix keeps steps of the whole picture: leave out --box, or --prefix.")
    guidance, sampler, seeds, box = (
        parse(options.guidance),
        sampler_of(options),
        lists.seeds(options.seeds),
        _box(options),
    )
    out = writable_folder(options.out)
    files = [out / f"edit_{seed:06d}.png" for seed in seeds]
    there = [path for path in (*files, out / "input.png", out / "sheet.png") if path.exists()]
    if there and not options.overwrite:
        raise ConfigError(f"{there[0]} is there already; choose another --out, or --overwrite.")
    model = _editable(load_model(options))
    models = lenders_of(options, model, [guidance])
    plan(model, guidance, models=models)
    label = model.conditions(options.label, 1)[0]
    image = read_image(Path(options.image).expanduser(), _size(model)).to(model.device)
    edited = _sample(model, image, box, label, seeds, guidance, sampler, models, options)
    out.mkdir(parents=True, exist_ok=True)
    general = Settings(
        model=options.model,
        tokenizer=options.tokenizer,
        load=options.load,
        model_hash=model_hash(model),
        dtype=options.dtype,
        guidance=str(guidance),
        sampler=sampler_facts(sampler),
        condition=label,
        name="no class" if options.label is None else lists.class_name(model, label),
        negative=None,
        seed=0,
        deterministic=options.deterministic,
        lenders=lender_paths(options.models),
        lender_hashes={name: model_hash(lender) for name, lender in models.items()},
        device=device_facts(model.device),
        versions=versions(),
    )
    kept = {"edit": "complete", "prefix": str(options.prefix)}
    if not options.prefix:
        kept = {"box": ",".join(f"{edge:g}" for edge in box), "edit": "outpaint" if options.outpaint else "inpaint"}
    pixels, original = to_uint8(edited), to_uint8(image)
    for path, seed, each in zip(files, seeds, pixels, strict=True):
        chunks = replace(general, seed=seed).chunks()
        # Not under the keyword that `sample --from` repeats, since the picture is not in it.
        write_png(
            path, each, {**{k: v for k, v in chunks.items() if k != "hguide"}, "settings": chunks["hguide"], **kept}
        )
        print(path)
    write_png(out / "input.png", original[0])
    write_png(out / "sheet.png", _sheet(general, kept, seeds, original, pixels, box))
    print(out / "sheet.png")


def _box(options: Any) -> tuple[float, float, float, float]:
    given = BOX if options.box is None else options.box
    edges = given.split(",") if isinstance(given, str) else given
    try:
        y0, x0, y1, x1 = map(float, edges)
    except ValueError:
        raise ConfigError(f"a box is four numbers y0,x0,y1,x1 in parts of the picture, got {given!r}.") from None
    return y0, x0, y1, x1


def _editable(generator: ScaleGenerator) -> Any:
    if not hasattr(generator, "edit"):
        raise ConfigError(f"{generator.name} cannot edit pictures: that needs a model with an encoder of pictures.")
    return generator


def _size(model: Any) -> tuple[int, int]:
    from hguide.backends.infinity import Infinity

    if isinstance(model, Infinity):
        return model.image_size
    stride = model.tokenizer.config.autoencoder.stride
    height, width = model.scales[-1].grid
    return height * stride, width * stride


def _keeping(model: Any, image: Tensor, box: Any, outpaint: bool) -> dict[str, Any]:
    """The options of a model that keeps the picture inside or outside of the box."""
    from hguide.backends.hart import HART, HybridEdit
    from hguide.backends.var import Edit, box_mask

    if isinstance(model, HART):
        hybrid = model.encode_hybrid(image)
        keep = box_mask(model.scales[-1].grid, box, inside=outpaint)
        return {"edit": HybridEdit(hybrid.tokens, keep, hybrid.rest)}
    tokens = model.encode(image)
    _, height, width = tokens[-1].shape[:3]
    return {"edit": Edit(tokens, box_mask((height, width), box, inside=outpaint))}


def _completing(
    model: Any, image: Tensor, prefix: int, sampler: Sampler
) -> tuple[dict[str, Any], Callable[[int], Sampler]]:
    """The options of a model, and the sampler of so many samples, whose first steps are the picture's."""
    from hguide.backends.vq_diffusion import Start, VQDiffusion
    from hguide.sampling import Prefix

    if not 1 <= prefix < model.count:
        raise ConfigError(
            f"{model.name} has {model.count} steps: --prefix is from 1 to {model.count - 1}, got {prefix}."
        )
    tokens = model.encode(image)[:prefix]
    if isinstance(model, VQDiffusion):
        # Its steps share one grid: what the picture has been through after so many of them is noise on its tokens.
        total = model.denoiser.config.timesteps
        left = max(total - round(prefix * total / model.count), 1)
        return {"start": Start(tokens[0], (left + 0.5) / total if left < total else 1.0)}, lambda _: sampler

    def forced(samples: int) -> Sampler:
        repeated = [each.expand(samples, *each.shape[1:]) for each in tokens]
        return Prefix(sampler.temperature, sampler.top_k, sampler.top_p, tokens=repeated)

    return {}, forced


def _keeps(model: Any, kept: Mapping[str, Any]) -> Any:
    return model.with_options(**kept) if kept else model


def _sample(
    model: Any,
    image: Tensor,
    box: Any,
    label: Any,
    seeds: Any,
    guidance: Any,
    sampler: Sampler,
    models: Mapping[str, Any],
    options: Any,
) -> Tensor:
    import torch
    from tqdm import tqdm

    from hguide.cli.batches import batches, sample_batches
    from hguide.cli.options import batch_size_of

    sampler_for: Callable[[int], Sampler] = lambda _: sampler  # noqa: E731
    if options.prefix:
        kept, sampler_for = _completing(model, image, options.prefix, sampler)
    else:
        kept = _keeping(model, image, box, options.outpaint)
    # Lenders see the same picture; one that is the model itself stays the model.
    editing = _keeps(model, kept)
    lenders = {name: editing if each is model else _keeps(each, kept) for name, each in models.items()}
    size = batch_size_of(options, editing, [guidance], lenders, wanted=len(seeds))
    parts = batches(editing, [(label, seed) for seed in seeds], size, options.deterministic)
    found = []
    with tqdm(total=len(seeds), unit="image", desc=str(guidance), file=sys.stderr) as progress:
        for part in parts:
            (batch,) = sample_batches(editing, [part], guidance, sampler_for(len(part)), models=lenders)
            found.append(batch.images.cpu())
            progress.update(len(part))
    return torch.cat(found)


def _sheet(
    settings: Settings, kept: dict[str, str], seeds: list[int], original: np.ndarray, pixels: np.ndarray, box: Any
) -> np.ndarray:
    import numpy as np

    from hguide.cli.sheet import Row, labelled_sheet

    if "prefix" in kept:
        row = Row(settings.name, (kept["edit"], settings.guidance), np.concatenate([original, pixels]))
        columns = ["input", *(f"seed {seed}" for seed in seeds)]
        note = f"first {kept['prefix']} steps of the input"
        return labelled_sheet(f"{Path(settings.model).name}: completion", note, [row], columns)
    marked = original.copy()
    height, width = marked.shape[1:3]
    top, left = round(box[0] * height), round(box[1] * width)
    bottom, right = round(box[2] * height) - 1, round(box[3] * width) - 1
    for edge in (np.s_[:, top, left : right + 1], np.s_[:, bottom, left : right + 1]):
        marked[edge] = (255, 60, 30)
    for edge in (np.s_[:, top : bottom + 1, left], np.s_[:, top : bottom + 1, right]):
        marked[edge] = (255, 60, 30)
    row = Row(settings.name, (kept["edit"], settings.guidance), np.concatenate([original, marked, pixels]))
    columns = ["input", "box", *(f"seed {seed}" for seed in seeds)]
    return labelled_sheet(f"{Path(settings.model).name}: {kept['edit']}ing", f"box {kept['box']}", [row], columns)
