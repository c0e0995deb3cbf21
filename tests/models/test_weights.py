"""Pretrained weights: names, layouts, there and back, and every way in which a file can be wrong."""

import dataclasses
import json
import struct
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging
from flax.traverse_util import flatten_dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fairkd_jax.errors import UsageError
from fairkd_jax.models import create_model, load_pretrained, read_pretrained
from fairkd_jax.models.architecture import ARCHITECTURES
from fairkd_jax.models.weights.convert import to_source
from fairkd_jax.models.weights.leaves import SOURCES, list_leaves
from fairkd_jax.programs import convert_weights

NAME, CLASSES = "efficientnet_tiny", 7
# The sizes of this network, for one that keeps another's conventions.
SMALL = {key: getattr(ARCHITECTURES[NAME], key) for key in ("stem", "stages", "head")}
SHARED = Path(__file__).parents[3] / "shared"
REAL = SHARED / "data" / "weights" / "tf_efficientnet_b0_imagenet.safetensors"


@pytest.fixture(scope="module")
def variables():
    """Of a small network, no two numbers of an array alike."""
    module = create_model(NAME, num_classes=CLASSES)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.float32(rng.uniform(0.5, 1.5, x.shape)), shapes)


@pytest.fixture
def arrays(variables):
    return to_source(NAME, variables, "timm")


@pytest.fixture
def write(tmp_path):
    def make(arrays, name="weights.safetensors", metadata=None):
        path = tmp_path / name
        save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, path, metadata)
        return path

    return make


# What the published files hold: the entry called variance is the standard deviation.
KERAS_IMAGENET = {"mean": [0.485, 0.456, 0.406], "variance": [0.229, 0.224, 0.225], "count": 0}


def write_keras(path, arrays, prefix="", **normalization):
    """As Keras lays them out: a group a layer, twice, and a colon."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, weight = name.split("/")
            if layer.endswith("dwconv"):
                weight = "depthwise_kernel"
            file[f"{prefix}{layer}/{layer}/{weight}:0"] = array
        layer = f"{prefix}normalization_4/normalization_4"
        for name, values in {**KERAS_IMAGENET, **normalization}.items():
            file[f"{layer}/{name}:0"] = np.float32(values)
        if prefix:  # a whole model, with its optimizer
            file["optimizer_weights/adam/stem_conv/kernel:0"] = np.zeros(3)
    return path


def assert_same(a, b):
    a, b = flatten_dict(a), flatten_dict(b)
    assert a.keys() == b.keys()
    for path in a:
        assert np.asarray(a[path]).tobytes() == np.asarray(b[path]).tobytes(), path


@pytest.mark.parametrize("source", SOURCES)
def test_there_and_back_gives_the_same_bytes(variables, write, tmp_path, source):
    arrays = to_source(NAME, variables, source)
    if source == "keras":
        path = write_keras(tmp_path / "weights.h5", arrays, prefix="model_weights/")
    else:
        # What torch saves beside each norm.
        counters = {
            f"{name[:-12]}num_batches_tracked": np.int64(3) for name in arrays if "running_mean" in name
        }
        path = write(arrays | counters)
    read = load_pretrained(NAME, path, num_classes=CLASSES)
    assert_same(read, variables)
    again = to_source(NAME, read, source)
    assert all(again[name].tobytes() == arrays[name].tobytes() for name in arrays)


def test_layouts_are_those_of_the_sources(variables):
    """By the meaning of the axes: out, in, rows, columns in torch; rows, columns, in, out in Keras."""
    ours = flatten_dict(variables)
    timm, keras = (to_source(NAME, variables, source) for source in ("timm", "keras"))
    stem = ours["params", "stem_conv", "kernel"]
    assert timm["conv_stem.weight"][5, 1, 0, 2] == stem[0, 2, 1, 5]
    assert keras["stem_conv/kernel"][0, 2, 1, 5] == stem[0, 2, 1, 5]
    depthwise = ours["params", "stage1_block0", "depthwise_conv", "kernel"]
    assert timm["blocks.1.0.conv_dw.weight"][5, 0, 0, 2] == depthwise[0, 2, 0, 5]
    assert keras["block2a_dwconv/kernel"][0, 2, 5, 0] == depthwise[0, 2, 0, 5]
    project = ours["params", "stage1_block0", "project_conv", "kernel"]
    assert timm["blocks.1.0.conv_pwl.weight"][3, 5, 0, 0] == project[5, 3]
    assert keras["block2a_project_conv/kernel"][0, 0, 5, 3] == project[5, 3]
    assert timm["classifier.weight"][3, 5] == ours["params", "classifier", "kernel"][5, 3]


def test_every_leaf_has_one_name_of_each_source():
    for name in ("efficientnet_b0", "efficientnet_b4"):
        table = list(list_leaves(ARCHITECTURES[name]))
        module = create_model(name, num_classes=1000)
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
        assert {leaf.path for leaf in table} == flatten_dict(shapes).keys()
        for source in SOURCES:
            assert len({leaf.names[source] for leaf in table}) == len(table)


def test_half_precision_becomes_float32(arrays, write, variables):
    halved = {name: array.astype(np.float16) for name, array in arrays.items()}
    read = load_pretrained(NAME, write(halved), num_classes=CLASSES)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(read))
    np.testing.assert_allclose(
        read["params"]["classifier"]["kernel"], variables["params"]["classifier"]["kernel"], rtol=1e-3
    )


def test_a_head_of_another_size_or_none_is_a_new_one(arrays, write, variables, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda *words: said.append(words[0] % words[1:]))
    for file in (arrays, {k: v for k, v in arrays.items() if not k.startswith("classifier")}):
        read = load_pretrained(NAME, write(file), num_classes=3)
        assert read["params"]["classifier"]["kernel"].shape[1] == 3
        without = [{**tree["params"]} for tree in (read, variables)]
        for params in without:
            params.pop("classifier")
        assert_same(*without)
    assert len(said) == 2
    assert "has no head of 3 classes: the head is new" in said[0]


def test_every_fault_of_the_names_is_in_one_line(arrays, write):
    gone = [name for name in arrays if ".se." in name]
    faulty = {name: array for name, array in arrays.items() if name not in gone}
    faulty["bn1.weight"] = np.ones(3, np.float32)
    faulty["left.over"] = np.ones(3, np.float32)
    with pytest.raises(UsageError) as error:
        load_pretrained(NAME, write(faulty), num_classes=CLASSES)
    message = str(error.value)
    assert "\n" not in message
    assert f"{len(gone)} missing ({gone[0]}, " in message
    assert "..." in message
    assert "1 unexpected (left.over)" in message
    assert "1 misshapen (bn1.weight (3,) instead of (16,))" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda name, x: np.full_like(x, 1 - 1e-5) if "var" in name else x, "its BatchNorm folded"),
        (lambda name, x: x * np.nan if name == "conv_head.weight" else x, "not finite: params/head_conv"),
        (lambda name, x: -x if "var" in name else x, "negative variances"),
    ],
)
def test_unusable_numbers_are_refused(arrays, write, change, message):
    changed = {name: np.float32(change(name, array)) for name, array in arrays.items()}
    with pytest.raises(UsageError, match=message):
        load_pretrained(NAME, write(changed), num_classes=CLASSES)


def test_files_that_are_none_are_one_line(write, tmp_path):
    huge = struct.pack("<Q", 10**9) + b"{}"
    lying = json.dumps({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()
    for name, content in (
        ("huge.safetensors", huge),
        ("lying.safetensors", struct.pack("<Q", len(lying)) + lying + b"abcd"),
        ("empty.safetensors", b""),
        ("empty.h5", b""),
        ("text.h5", b"hello"),
        ("weights.npz", b"PK"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError) as error:
            load_pretrained(NAME, tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)
    with pytest.raises(UsageError, match="there is no checkpoint file"):
        load_pretrained(NAME, tmp_path / "absent.safetensors")
    with pytest.raises(UsageError, match="no names of an EfficientNet of timm, torchvision or Keras: layer"):
        load_pretrained(NAME, write({"layer": np.ones(2, np.float32)}))


def test_an_hdf5_file_that_links_in_a_circle_or_outside_ends(variables, tmp_path):
    path = write_keras(tmp_path / "weights.h5", to_source(NAME, variables, "keras"))
    with h5py.File(path, "a") as file:
        file["stem_conv/again"] = h5py.SoftLink("/stem_conv")
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/")
    assert_same(load_pretrained(NAME, path, num_classes=CLASSES), variables)
    with h5py.File(path, "a") as file:
        file["stem_conv/circle"] = file["stem_conv"]
    with pytest.raises(UsageError, match="nested too deeply, or links in a circle"):
        load_pretrained(NAME, path, num_classes=CLASSES)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("kind", ["safetensors", "h5"])
def test_damaged_bytes_give_clean_errors(variables, tmp_path, kind, data):
    """300 files in all, cut short or with bytes changed, mostly where a format says what it holds."""
    small = {"bn1.weight": np.ones(16, np.float32), "stem_bn/gamma": np.ones(16, np.float32)}
    path = tmp_path / f"weights.{kind}"
    if kind == "h5":
        write_keras(path, {"stem_bn/gamma": small["stem_bn/gamma"]})
    else:
        save_file(small, path)
    content = bytearray(path.read_bytes())
    reach = data.draw(st.sampled_from([64, 600, len(content)]))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(reach, len(content)) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with pytest.raises(UsageError) as error:
        load_pretrained(NAME, path)
    assert "\n" not in str(error.value)


def test_files_of_torch_need_their_extra_and_are_never_executed(variables, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"cos\nsystem\n(S'touch /tmp/executed'\ntR.")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UsageError, match="needs the extra `torch`"):
        load_pretrained(NAME, path)


def test_torch_files_are_read(variables, arrays, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    torch.save({name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}, path)
    assert_same(load_pretrained(NAME, path, num_classes=CLASSES), variables)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UsageError, match="no plain state_dict"):
        load_pretrained(NAME, path)


def test_the_other_family_is_warned_of(variables, write, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda *words: said.append(words[0] % words[1:]))
    other = dataclasses.replace(ARCHITECTURES[NAME], padding="SAME", bn_epsilon=1e-3)
    monkeypatch.setitem(ARCHITECTURES, f"tf_{NAME}", other)
    arrays = to_source(NAME, variables, "timm")
    path = write(arrays, metadata={"architecture": f"tf_{NAME}", "norm_epsilon": "0.001"})
    load_pretrained(NAME, path, num_classes=CLASSES)
    assert "trained with SAME padding, and efficientnet_tiny has symmetric padding" in said[0]
    assert "needs create_model('efficientnet_tiny', ..., norm_epsilon=0.001)" in said.pop()
    load_pretrained(f"tf_{NAME}", path, num_classes=CLASSES)
    assert len(said) == 1
    keras = write_keras(tmp_path / "w.h5", to_source(NAME, variables, "keras"))
    load_pretrained(NAME, keras, num_classes=CLASSES)
    assert "SAME padding" in said.pop(1)
    said.pop()
    other = write(arrays, metadata={"architecture": "efficientnet_b0"})
    with pytest.raises(UsageError, match="of efficientnet_b0, not of efficientnet_tiny; use efficientnet_b0"):
        load_pretrained(NAME, other, num_classes=CLASSES)
    load_pretrained(NAME, write(arrays, metadata={"architecture": NAME}), num_classes=CLASSES)
    assert len(said) == 1


@pytest.mark.parametrize(
    "numbers",
    [
        {"mean": [0.0, 0.0, 0.0], "variance": [1.0, 1.0, 1.0]},
        {"mean": [0.5, 0.45, 0.4]},
        {"variance": [0.229**2, 0.224**2, 0.225**2]},
        {"mean": [0.4]},
        {"variance": [np.nan] * 3},
    ],
)
def test_keras_images_normalized_by_other_numbers_are_refused(variables, tmp_path, numbers):
    arrays = to_source(NAME, variables, "keras")
    path = write_keras(tmp_path / "weights.h5", arrays, **numbers)
    with pytest.raises(UsageError, match=r"normalization_4/(mean|variance): .*cannot be followed yet"):
        load_pretrained(NAME, path, num_classes=CLASSES)


@pytest.mark.parametrize(
    ("name", "source", "epsilon"),
    [  # as the builders of the libraries have it
        *((f"efficientnet_b{size}", "torchvision", 1e-5) for size in range(5)),
        *((f"efficientnet_b{size}", "torchvision", 1e-3) for size in (5, 6, 7)),
        *((f"efficientnet_b{size}", "timm", 1e-5) for size in range(8)),
        *((f"tf_efficientnet_b{size}", "timm", 1e-3) for size in range(8)),
        *((f"tf_efficientnet_b{size}", "keras", 1e-3) for size in range(8)),
    ],
)
def test_the_epsilon_is_that_of_the_library_whose_names_the_file_has(
    variables, write, tmp_path, monkeypatch, name, source, epsilon
):
    network = dataclasses.replace(ARCHITECTURES[name], **SMALL)
    monkeypatch.setitem(ARCHITECTURES, name, network)
    arrays = to_source(name, variables, source)
    path = write_keras(tmp_path / "w.h5", arrays) if source == "keras" else write(arrays)
    found = read_pretrained(name, path, num_classes=CLASSES)
    assert (found.norm_epsilon or network.bn_epsilon) == epsilon
    built = create_model(name, num_classes=CLASSES, norm_epsilon=found.norm_epsilon)
    assert built.architecture.bn_epsilon == epsilon


def test_a_conversion_keeps_the_epsilon_and_the_names_of_the_classes(
    variables, write, tmp_path, monkeypatch, capsys
):
    name = "efficientnet_b5"
    monkeypatch.setitem(ARCHITECTURES, name, dataclasses.replace(ARCHITECTURES[name], **SMALL))
    path, output = write(to_source(name, variables, "torchvision")), tmp_path / "timm.safetensors"
    classes = [f"c{number}" for number in range(CLASSES)]
    common = [str(output), f"--num_classes={CLASSES}", f"--architecture={name}"]
    assert convert_weights.main([str(path), *common, "--class_names", *classes]) == 0
    assert "epsilon 1e-05 in BatchNorm, and these weights need 0.001" in capsys.readouterr().out
    found = read_pretrained(name, output, num_classes=CLASSES)
    assert (found.norm_epsilon, found.class_names) == (1e-3, tuple(classes))
    other = tmp_path / "again.safetensors"
    assert convert_weights.main([str(output), str(other), *common[1:], "--names=torchvision"]) == 0
    assert "note:" not in capsys.readouterr().out
    assert read_pretrained(name, other, num_classes=CLASSES)[1:] == found[1:]
    assert convert_weights.main([str(path), *common, "--class_names", "one"]) == 2
    assert convert_weights.main([str(path), *common[:1], f"--architecture={name}", "--num_classes=3"]) == 0
    assert "the head is new and untrained" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["[" * 200_000, "{", "3", '["a", 1]', '["a"]'])
def test_names_of_classes_that_are_none_are_left_out(arrays, write, names):
    path = write(arrays, metadata={"class_names": names})
    assert read_pretrained(NAME, path, num_classes=CLASSES).class_names == ()


@pytest.mark.parametrize("stated", ["0", "nan", "-1e-3", "x"])
def test_an_epsilon_that_is_none_is_one_line(arrays, write, stated):
    path = write(arrays, metadata={"norm_epsilon": stated})
    with pytest.raises(UsageError, match="norm_epsilon in its metadata"):
        load_pretrained(NAME, path, num_classes=CLASSES)


def test_the_script_converts_and_converts_back(arrays, write, tmp_path, capsys):
    path = write(arrays)
    common = ["--architecture", NAME, "--num_classes", str(CLASSES)]
    keras, back = tmp_path / "keras.safetensors", tmp_path / "back.safetensors"
    assert convert_weights.main([*common, str(path), str(keras), "--names", "keras"]) == 0
    assert convert_weights.main([*common, str(keras), str(back)]) == 0
    assert_same(*(load_pretrained(NAME, file, num_classes=CLASSES) for file in (path, back)))
    assert convert_weights.main([*common, str(path), str(tmp_path / "out.h5")]) == 2
    assert convert_weights.main([*common, str(tmp_path / "absent.h5"), str(back)]) == 2
    assert "there is no checkpoint file" in capsys.readouterr().err
    assert convert_weights.main([*common, str(path), str(path)]) == 2
    (tmp_path / "folder.safetensors").mkdir()
    assert convert_weights.main([*common, str(path), str(tmp_path / "folder.safetensors")]) == 2
    assert convert_weights.main([*common, str(tmp_path), str(back)]) == 2
    assert "is a folder; name the checkpoint file in it" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


@pytest.mark.skipif(not SHARED.exists(), reason="the tables of names are not here")
def test_names_are_those_of_the_tables():
    table = list(list_leaves(ARCHITECTURES["efficientnet_b0"]))
    folder = SHARED / "design" / "weight_names"
    for file, columns in (
        ("map_timm_torchvision_b0.tsv", ("timm", "torchvision")),
        ("map_keras_timm_b0.tsv", ("keras", "timm")),
    ):
        rows = [line.split("\t") for line in (folder / file).read_text().splitlines()[1:]]
        rows = [row for row in rows if "num_batches" not in row[0] and "normalization" not in row[0]]
        assert {(row[0], row[1]) for row in rows} == {
            tuple(leaf.names[column] for column in columns) for leaf in table
        }


@pytest.mark.skipif(not REAL.exists(), reason="the real weights are not here")
def test_the_real_file_is_read():
    variables = load_pretrained("tf_efficientnet_b0", REAL, num_classes=16)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 5_330_564 - 984 * 1281
