"""One model.yaml → its models: the plain one, and one for each variant.

A variant is a builder of its own, with the file's spec under another name. So all that is true of a model (steps,
verification, publish, lint, load tests) is true of a variant.
"""

from __future__ import annotations

from modelwright.project.merge import merge
from modelwright.project.spec import Builder, ModelSpec, Variant, VariantSpec


def models_of(builder: Builder) -> list[Builder]:
    """The models that a model.yaml describes, the plain one first.

    An entry of `variants` with the builder's own name changes that model; without one it is built as it is.
    """
    spec = builder.spec
    if not spec.variants:
        return [builder]
    made = [_variant(builder, variant) for variant in spec.variants]
    if any(model.name == spec.name for model in made):
        return sorted(made, key=lambda model: model.name != spec.name)
    return [Builder(builder.folder, builder.file, spec.model_copy(update={"variants": ()})), *made]


def _variant(builder: Builder, variant: VariantSpec) -> Builder:
    base = builder.spec
    changed = {
        "name": variant.name,
        "description": variant.description or base.description,
        "gates": base.gates.merged(variant.gates),
        "evaluate": variant.evaluate or base.evaluate,
        "serving": merge(base.serving, variant.serving),
        "variants": (),
    }
    spec: ModelSpec = base.model_copy(update=changed)
    return Builder(builder.folder, builder.file, spec, Variant(base.name, variant.steps, variant.on_request))
