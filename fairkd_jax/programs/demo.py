"""Serves a page on which people try the models of finished runs.

fairkd-demo RUN [RUN ...] [--host HOST] [--port PORT]

An image is shown with the answers of the teacher, of the student without debiasing and of the student with
it. The run without debiasing in RUN/baseline counts too. Test images can be chosen by class, by group, and by
what debiasing changed. The page works without a network, and is for this machine alone unless --host says
otherwise.
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairkd_jax.cli import OneLineParser, parse_path_argument, print_lines, use_compilation_cache
from fairkd_jax.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from fairkd_jax.demo.page import DemoPage

_HERE = "127.0.0.1"


def main(arguments: list[str] | None = None) -> int:
    """Serves the page that the command line asks for, until Ctrl-C.

    Args:
      arguments: Arguments of the command line; None for those of the process.

    Returns:
      The exit code: 0, or 2 after a user's mistake.
    """
    parser = OneLineParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", type=parse_path_argument, nargs="+", metavar="RUN", help="Folder of a finished run."
    )
    parser.add_argument(
        "--host",
        default=_HERE,
        help=f"Address on which the page is served (default: {_HERE}, which other machines cannot reach).",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="Port of the page (default: the first free one from 7860)."
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        parser.error(f"--port {options.port} is no port; use 1 to 65535")
    return print_lines(parser.prog, _serve(options))


def _serve(options: argparse.Namespace) -> Iterator[str]:
    """Serves the page; yields what the user has to know."""
    if options.host != _HERE:
        print(
            f"fairkd-demo: whoever reaches {options.host} can use this page and see the test images",
            file=sys.stderr,
        )
    _check_port(options.host, options.port)
    with tempfile.TemporaryDirectory(prefix="fairkd-demo-") as uploads:
        _keep_gradio_here(uploads, options.host)
        try:
            import gradio
        except ImportError as error:
            raise MissingExtraError("the demo needs", "demo", error) from error
        from fairkd_jax.demo.page import SCRIPT, STYLE, make_page
        from fairkd_jax.demo.uploads import MAX_UPLOAD_BYTES

        use_compilation_cache()
        content = yield from _load_content(options.runs)
        page = make_page(content)
        fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["monospace"]}
        try:
            page.launch(
                server_name=options.host,
                server_port=options.port or None,
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                show_error=True,
                max_file_size=MAX_UPLOAD_BYTES,
                footer_links=[],
                theme=gradio.themes.Base(**fonts),
                css=STYLE,
                js=SCRIPT,
            )
        except OSError as error:  # another program took the port in the meantime
            raise UsageError(f"{options.host} has no free port for the page; name another --port") from error
        yield f"Open {page.local_url} in a browser; Ctrl-C ends the demo."
        _wait_until_interrupted()
        page.close(verbose=False)


def _check_port(host: str, port: int) -> None:
    """Checks that the page can be served, before the models are loaded; port 0 stands for any."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{host}:{port or 'any port'} cannot be used ({reason}); name another") from error


def _keep_gradio_here(uploads: str, host: str) -> None:
    """Sets Gradio's environment before its import: nothing leaves this machine, and uploads are deleted."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = uploads
    # Gradio asks its own server whether it runs; a proxy would not find the server.
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "localhost", _HERE, host]))


def _wait_until_interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _load_content(runs: list[Path]) -> Generator[str, None, "DemoPage"]:
    """Loads and compiles what the page shows; yields what the user has to know.

    Raises:
      UsageError: A folder holds no finished run, or the runs were trained on different data.
    """
    from fairkd_jax.demo.examples import collect_examples
    from fairkd_jax.demo.page import DemoPage
    from fairkd_jax.demo.shown_models import load_shown_models
    from fairkd_jax.demo.uploads import ImageForm
    from fairkd_jax.runs.dataset import open_recorded_data, parse_recorded_data
    from fairkd_jax.runs.folder import read_run_config

    models = load_shown_models(runs)
    saved = read_run_config(runs[0])
    data, info = parse_recorded_data(saved), saved.data_info
    for model in models:
        yield f"{model.title}: {model.folder} ({model.method})"
        model.answer(np.zeros((data.size, data.size, 3), np.uint8))  # compiles the model
    examples = None
    try:
        dataset = open_recorded_data(runs[0], saved, cache="none")
        examples = collect_examples(dataset, models)
    except UsageError as error:
        yield f"There are no test images to choose from: {error}"
    form = ImageForm(data.size, data.resize, data.quality)
    return DemoPage(f"{info['dataset']}: {len(models)} models", models, info["class_names"], form, examples)
