"""The protocol of a classifier, and its folding for inference."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from fairkd_jax.types import Tree


@runtime_checkable
class Classifier(Protocol):
    """An image classifier that the package can train, load, fold, fine-tune and evaluate.

    A `flax.linen.Module` has `init` and `apply` already. A new architecture is one file with such a module
    and one line that names its factory: `MODELS["mine"] = factory`; see `registry`.

    The variables are a dict: "params" and, for a model with running statistics, "batch_stats". All arrays are
    float32; the computation may use another dtype.
    """

    @property
    def embedding_width(self) -> int:
        """Width D of the embedding."""

    @property
    def head_name(self) -> str:
        """Name of the head in the parameters: `variables["params"][head_name]`.

        Fine-tuning trains the head at another rate, and replaces the head where the classes are others.
        """

    def init(self, rngs: Any, images: Any, /) -> Any:
        """Draws the first variables.

        Args:
          rngs: Key of `jax.random`.
          images: Images, float [B, H, W, 3]; the values and B do not matter.

        Returns:
          The variables.
        """

    def apply(
        self,
        variables: Any,
        inputs: Any,
        /,
        *,
        train: bool = False,
        method: str | None = None,
        mutable: Any = False,
        rngs: Any = None,
    ) -> Any:
        """Classifies images or, with `method="classify"`, embeddings.

        Args:
          variables: Variables of `init`; "params" alone is enough for `method="classify"`.
          inputs: Normalised images, float [B, H, W, 3]; for `method="classify"` embeddings, float32 [B, D].
          train: Whether to use the batch's statistics and to drop at random.
          method: None for the whole network; "classify" for the head alone.
          mutable: Collections to update; training gives `["batch_stats"]`.
          rngs: Keys by purpose; training gives `{"dropout": key}`.

        Returns:
          `Outputs`, or `GroupOutputs` from a model with a head for each group. If `mutable` is given: the
          pair of the outputs and the updated collections.
        """

    def inference_form(self) -> "Classifier":
        """Returns the model that takes the variables of `fold_variables`; it only infers.

        A model without such a form returns itself.
        """

    def fold_variables(self, variables: Mapping[str, Tree]) -> dict[str, Tree]:
        """Computes the variables of the inference form; it may be jitted.

        Args:
          variables: Parameters and statistics in training form, float32.

        Returns:
          Variables that give the same outputs in the inference form, up to rounding.
        """


def fold(model: Classifier, variables: Mapping[str, Tree]) -> tuple[Classifier, dict[str, Tree]]:
    """Makes the form of a model that only infers.

    Args:
      model: Model in training form.
      variables: Its parameters and statistics, float32.

    Returns:
      The inference form and its variables. The form gives the same outputs up to rounding, and cannot be
      trained.
    """
    return model.inference_form(), model.fold_variables(variables)
