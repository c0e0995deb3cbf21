"""The page of the demo: an image beside the answers of all models (extra `demo`)."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairkd_jax.data.images import encode_image
from fairkd_jax.demo.examples import Examples
from fairkd_jax.demo.shown_models import ShownModel
from fairkd_jax.demo.uploads import MAX_UPLOAD_BYTES, ImageForm, read_upload
from fairkd_jax.errors import UsageError

Answer = Callable[[str | None], list[Any]]
_PAGE_SIZE = 12  # test images that are shown together
_SHOWN_CLASSES = 5
_SHOWN_SIDE = 200  # pixels
_ALL = "all"
_QUEUE = 16  # requests that wait; a further one gets a message
_OLD = 600  # seconds after which an uploaded file is deleted
_INTRODUCTION = (
    "Drop an image, or choose a test image. All models answer side by side. An uploaded image goes to the"
    f" machine that serves this page, and is deleted after {_OLD // 60} to {2 * _OLD // 60} minutes."
)
# Gradio writes some texts in a grey that is too light to read.
STYLE = """
:root, .dark {
  --body-text-color-subdued: var(--body-text-color); --block-info-text-color: var(--body-text-color);
  --block-label-text-color: var(--body-text-color); --block-title-text-color: var(--body-text-color);
}
"""
# Gradio names some buttons otherwise than they are written: their own texts are better names.
SCRIPT = """
() => {
  const buttons = "button[aria-dropeffect], .thumbnail-item";
  const mend = () => document.querySelectorAll(buttons).forEach((own) => own.removeAttribute("aria-label"));
  mend();
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
}
"""


@dataclass(frozen=True)
class DemoPage:
    """What the page shows, and its answers to what people do.

    Attributes:
      title: Title of the page.
      models: The models, in order.
      class_names: Names of the C classes.
      form: Form of the models' images.
      examples: The test images; None without them.
    """

    title: str
    models: Sequence[ShownModel]
    class_names: Sequence[str]
    form: ImageForm
    examples: Examples | None

    def answer(self, pixels: np.ndarray, truth: str) -> list[Any]:
        """Answers to an image.

        Args:
          pixels: Pixels, uint8 [S, S, 3].
          truth: What is known of the image.

        Returns:
          Values of the components: the image as HTML, the truth; for each model its probabilities and its
          facts.
        """
        values: list[Any] = [_show_image(pixels), truth]
        for model in self.models:
            probabilities, milliseconds = model.answer(pixels)
            values.append(self._make_bars(probabilities))
            values.append(_describe_model(model, f"{milliseconds:.1f} ms an image"))
        return values

    def _make_bars(self, probabilities: np.ndarray) -> dict[str, float]:
        """Makes the bars of a model; two classes of one name stay apart."""
        names = list(self.class_names)
        return {
            name if names.count(name) == 1 else f"{name} ({place})": float(probability)
            for place, (name, probability) in enumerate(zip(names, probabilities, strict=True), 1)
        }

    def answer_upload(self, path: str | None) -> list[Any]:
        """Answers to an uploaded file.

        Args:
          path: The file; None where the upload was taken away.

        Raises:
          UsageError: The file is no image that can be used.
        """
        if path is None:
            raise UsageError("There is no image yet; drop one on the page")
        pixels = read_upload(Path(path), self.form)
        return self.answer(pixels, "unknown: this image is yours")

    def list_examples(
        self, label: str, group: str, change: str, number: float
    ) -> tuple[list[Any], list[int], str]:
        """Lists a page of test images.

        Args:
          label: Name of a class, or "all".
          group: Name of a group, or "all".
          change: Kind of a change, or "all".
          number: Number of the page, from 1; one beyond the last page counts as the last.

        Returns:
          The images with their descriptions, their rows, and a sentence on how many there are.
        """
        assert self.examples is not None
        rows = self.examples.find(*(None if name == _ALL else name for name in (label, group, change)))
        pages = max(1, -(-len(rows) // _PAGE_SIZE))
        number = min(max(1, int(number or 1)), pages)
        shown = rows[_PAGE_SIZE * (number - 1) : _PAGE_SIZE * number]
        images = self.examples.split.read_images(shown)
        pictures = [
            (image, self.examples.describe(row)) for image, row in zip(images, shown.tolist(), strict=True)
        ]
        return pictures, shown.tolist(), f"{len(rows)} test images; page {number} of {pages}."

    def answer_example(self, row: int) -> list[Any]:
        """Answers to a test image.

        Args:
          row: Row of the test split.
        """
        assert self.examples is not None
        pixels = self.examples.split.read_images(np.array([row]))[0]
        return self.answer(pixels, self.examples.describe(row))


def _show_image(pixels: np.ndarray) -> str:
    """Returns an image as HTML that holds its bytes, so that no file of it stays on this machine."""
    data = base64.b64encode(encode_image(pixels, quality=0)).decode()
    style = f"width:{_SHOWN_SIDE}px;max-width:100%;image-rendering:pixelated"
    return f'<img src="data:image/png;base64,{data}" alt="The image as the models get it" style="{style}">'


def _describe_model(model: ShownModel, time: str) -> str:
    """Describes a model as HTML; the texts are escaped."""
    lines = (
        model.method,
        f"{model.architecture}, {model.parameters:,} parameters, {model.megabytes:.1f} MB as float32",
        time,
    )
    return "<br>".join(html.escape(line) for line in lines)


def make_page(content: DemoPage) -> Any:
    """Makes the page.

    Args:
      content: What the page shows.

    Returns:
      A `gradio.Blocks` with its queue, ready to launch.
    """
    import gradio

    with gradio.Blocks(title=content.title, analytics_enabled=False, delete_cache=(_OLD, _OLD)) as page:
        gradio.HTML(f"<h1>{html.escape(content.title)}</h1><p>{_INTRODUCTION}</p>")
        with gradio.Row():
            with gradio.Column(scale=2, min_width=280):
                upload = gradio.File(
                    label=f"Your image, at most {MAX_UPLOAD_BYTES // 2**20} MB", type="filepath", height=160
                )
                browser = _add_examples(gradio, content) if content.examples is not None else None
            with gradio.Column(scale=3, min_width=280):
                answers = _add_answers(gradio, content)
        handle = _say_mistakes(gradio, content.answer_upload)
        upload.upload(handle, upload, answers, api_name="classify")
        if browser is not None:
            gallery, rows = browser

            def answer_selected(shown: list[int], event: gradio.SelectData) -> list[Any]:
                return content.answer_example(shown[event.index])

            # Gradio finds the argument of the event by its annotation.
            answer_selected.__annotations__["event"] = gradio.SelectData
            gallery.select(answer_selected, rows, answers, api_visibility="private")
    return page.queue(max_size=_QUEUE, default_concurrency_limit=1)


def _say_mistakes(
    gradio: Any, answer: Callable[[str | None], list[Any]]
) -> Callable[[str | None], list[Any]]:
    """Makes a mistake of a person a message on the page."""

    def handle(path: str | None) -> list[Any]:
        try:
            return answer(path)
        except UsageError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    return handle


def _add_answers(gradio: Any, content: DemoPage) -> list[Any]:
    """Adds the image, its truth and the answers of all models; returns the components.

    They begin with the first test image, where there is one.
    """
    is_known = content.examples is not None
    image, fact, *answers = (
        content.answer_example(0) if is_known else ["", "", *[None, ""] * len(content.models)]
    )
    with gradio.Row():
        shown = gradio.HTML(
            image, label="What the models get", show_label=True, container=True, padding=True, min_height=250
        )
        truth = gradio.Textbox(fact, label="Truth: class and group", interactive=False)
    components = [shown, truth]
    with gradio.Row():
        for model, bars, facts in zip(content.models, answers[::2], answers[1::2], strict=True):
            with gradio.Column(min_width=200):
                components.append(
                    gradio.Label(bars, label=model.title, num_top_classes=_SHOWN_CLASSES, show_heading=True)
                )
                components.append(gradio.HTML(facts))
    return components


def _add_examples(gradio: Any, content: DemoPage) -> tuple[Any, Any]:
    """Adds the test images with their choices; returns the gallery and the rows that it shows."""
    examples = content.examples
    assert examples is not None
    pictures, rows, sentence = content.list_examples(_ALL, _ALL, _ALL, 1)
    with gradio.Row():
        choices = [
            gradio.Dropdown([_ALL, *names], value=_ALL, label=label, min_width=110, visible=bool(names))
            for label, names in (
                ("Class", list(examples.class_names)),
                ("Group", list(examples.group_names)),
                ("Changed by debiasing", examples.changes),
            )
        ]
        number = gradio.Number(1, label="Page", precision=0, minimum=1, min_width=80)
    count = gradio.Textbox(sentence, label="Found", interactive=False)
    gallery = gradio.Gallery(
        pictures,
        label="Test images: choose one",
        columns=4,
        allow_preview=False,
        interactive=False,
        format="png",
        buttons=[],
        object_fit="contain",
    )
    shown = gradio.State(rows)
    found = [gallery, shown, count]
    number.change(content.list_examples, [*choices, number], found, api_visibility="private")
    for choice in choices:
        # Another choice begins with its first page.
        choice.change(
            lambda label, group, change: [*content.list_examples(label, group, change, 1), 1],
            choices,
            [*found, number],
            api_visibility="private",
        )
    return gallery, shown
