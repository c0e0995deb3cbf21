"""Equal images, and data that are told apart by their bytes."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairkd_jax.data import catalog, file_hashes
from fairkd_jax.data.copies import find_equal_rows, leave_out_copies
from fairkd_jax.data.pipeline import open_dataset
from fairkd_jax.data.preparation_plan import ExampleTable
from fairkd_jax.data.utkface.file_names import assign_split
from fairkd_jax.errors import UsageError
from fairkd_jax.programs import prepare_data
from fairkd_jax.runs.dataset import describe_data
from tests.data.test_preparation import pack

GOOD = ["a.png,cat,x,train", "b.png,dog,y,train", "c.png,dog,y,val", "d.png,cat,x,test"]


def open_manifest(manifest, directory, **options):
    return open_dataset("manifest", source=str(manifest), directory=directory, size=20, **options)


def give_same_times(folder):
    for path in folder.iterdir():
        if path.is_file():
            os.utime(path, ns=(10**18, 10**18))


def test_two_folders_with_the_same_names_sizes_and_times_are_two_data_sets(tmp_path, encoded, monkeypatch):
    found = []
    for number, name in enumerate(("one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        for row, letter in enumerate("abcd"):  # BMP files of equal size
            (folder / f"{letter}.png").write_bytes(encoded(10 * number + row, format="BMP"))
        (folder / "m.csv").write_text("\n".join(["path,label,group,split", *GOOD]) + "\n")
        give_same_times(folder)
        found.append(open_manifest(folder / "m.csv", tmp_path / "d"))
    pixels = [dataset.split("train").read_images() for dataset in found]
    assert np.abs(np.subtract(*pixels, dtype=int)).max() > 0
    described = [describe_data(dataset) for dataset in found]
    assert described[0]["digests"] == described[1]["digests"]
    assert all(
        described[0]["contents"][split] != described[1]["contents"][split]
        for split in described[0]["contents"]
    )

    # The same bytes elsewhere, at another time, are the same data.
    shutil.copytree(tmp_path / "one", tmp_path / "three", copy_function=shutil.copy)
    again = open_manifest(tmp_path / "three" / "m.csv", tmp_path / "d")
    assert again.info == found[0].info
    # A start on prepared data reads no image.
    monkeypatch.setattr(file_hashes, "hash_file", None)
    assert open_manifest(tmp_path / "one" / "m.csv", tmp_path / "d").info == found[0].info


def hard_link(folder):
    os.link(folder / "a.png", folder / "e.png")
    return "e.png"


def other_folder(folder):
    (folder / "real").mkdir()
    (folder / "real" / "e.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "linked").symlink_to(folder / "real")
    return "linked/e.png"


def copied(folder):
    shutil.copyfile(folder / "a.png", folder / "e.png")
    return "e.png"


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("make", [hard_link, other_folder, copied])
def test_an_image_in_two_splits_is_refused_under_any_name(write_manifest, tmp_path, make, split):
    manifest = write_manifest(GOOD)
    name = make(tmp_path)
    manifest.write_text(manifest.read_text() + f"{name},cat,x,{split}\n")
    with pytest.raises(
        UsageError, match=rf"a\.png \(train\) = {name} \({split}\); keep each .*allow_duplicates"
    ):
        open_manifest(manifest, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    allowed = open_manifest(manifest, tmp_path / "d", allow_duplicates=True)
    assert allowed.info.num_examples[split] == 2
    assert [copy.ids for copy in allowed.info.copies] == [("a.png", name)]
    for path in tmp_path.glob("*.png"):
        path.unlink()  # the prepared data know their copies
    with pytest.raises(UsageError, match=r"the prepared manifest data: 1 image is in two splits"):
        open_manifest(manifest, tmp_path / "d")
    # A run of before knew nothing of copies.
    assert open_manifest(manifest, tmp_path / "d", by_content=False).info.contents == {}


def test_copies_within_a_split_stay(write_manifest, tmp_path):
    manifest = write_manifest([*GOOD, "e.png,dog,,train"])
    shutil.copyfile(tmp_path / "a.png", tmp_path / "e.png")
    dataset = open_manifest(manifest, tmp_path / "d")
    assert dataset.info.num_examples["train"] == 3
    (copy,) = dataset.info.copies
    assert copy.is_contradictory
    assert copy.is_kept == (True, True)


@given(st.lists(st.tuples(st.sampled_from(("train", "val", "test")), st.sampled_from(("", "a", "b", "c")))))
def test_after_the_rule_no_known_image_is_in_two_splits_and_none_is_lost(rows):
    splits = np.array([split for split, _ in rows], "<U5")
    hashes = np.array([digest for _, digest in rows], "<U64")
    numbers = np.zeros(len(rows), np.int32)
    ids = np.array([str(row) for row in range(len(rows))], dtype=np.str_)
    table, copies = leave_out_copies(ExampleTable(ids, splits, numbers, numbers, hashes=hashes))
    for digest in set(hashes.tolist()):
        own = hashes == digest
        left = set(table.splits[own].tolist()) - {""}
        before = set(splits[own].tolist())
        strongest = next(split for split in ("test", "val", "train") if split in before)
        assert left == ({strongest} if digest else before)
    assert (table.splits[table.splits != ""] == splits[table.splits != ""]).all()
    assert len(copies) == len(find_equal_rows(hashes.tolist()))


@pytest.mark.parametrize("packed", [False, True])
def test_of_published_data_the_copy_leaves_train_and_val(tmp_path, encoded, face_names, packed, capsys):
    names = face_names(60)
    by_split = {split: [n for n in names if assign_split(n) == split] for split in ("train", "val", "test")}
    same = [by_split["train"][0], by_split["val"][0], by_split["test"][0]]
    equal = [by_split["train"][1], by_split["val"][1]]
    folder = tmp_path / "faces"
    folder.mkdir()
    for seed, name in enumerate(names):
        seed = 100 if name in same else 200 if name in equal else seed
        (folder / name).write_bytes(encoded(seed))
    source = folder
    if packed:
        source = pack(tmp_path / "f.tar.gz", [(name, (folder / name).read_bytes()) for name in names])
    arguments = ["utkface", f"--source={source}", "--size=20", f"--directory={tmp_path / 'd'}"]
    assert prepare_data.main(arguments) == 0
    assert "2 sets of equal images, 2 across splits" in capsys.readouterr().out
    dataset = open_dataset("utkface", source=str(source), directory=tmp_path / "d", size=20)
    for split, gone in (("train", {same[0], equal[0]}), ("val", {same[1]}), ("test", set())):
        assert set(dataset.split(split).ids) == set(by_split[split]) - gone
    sheet = (Path(dataset.info.directory) / "datasheet.md").read_text()
    assert f"{same[0]} (train, left out: " in sheet
    kept = open_dataset(
        "utkface", source=str(source), directory=tmp_path / "d", size=20, allow_duplicates=True
    )
    assert kept.info.num_examples == {split: len(found) for split, found in by_split.items()}


def test_verify_finds_a_changed_image_of_the_same_size_and_time(write_manifest, tmp_path, encoded, capsys):
    manifest = write_manifest(GOOD)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(1, format="BMP"))
    give_same_times(tmp_path)
    arguments = ["manifest", f"--source={manifest}", "--size=20", f"--directory={tmp_path / 'd'}"]
    assert prepare_data.main(arguments) == 0
    path.write_bytes(encoded(2, format="BMP"))
    give_same_times(tmp_path)
    capsys.readouterr()
    assert prepare_data.main(arguments) == 0
    assert "decoded" not in capsys.readouterr().err
    assert prepare_data.main([*arguments, "--verify"]) == 0
    assert "decoded 4 images" in capsys.readouterr().err


def test_what_an_earlier_version_prepared_is_used_and_not_compared(write_manifest, tmp_path, monkeypatch):
    manifest = write_manifest(GOOD)
    new = Path(open_manifest(manifest, tmp_path / "d").info.directory)

    plan = catalog.make_plan("manifest", source=str(manifest), size=20, resize="squash", options={})
    earlier = new.parents[1] / f"{plan.settings}-{plan.earlier_digest()}" / new.name
    shutil.copytree(new, earlier)
    shutil.rmtree(new.parent)
    for table in earlier.glob("table_*.npz"):
        with np.load(table) as arrays:
            columns = {name: arrays[name] for name in arrays.files if name != "hashes"}
        np.savez_compressed(table, **columns)
    (earlier / "SHA256SUMS").unlink()
    monkeypatch.setattr(file_hashes, "hash_file", None)  # no image is read
    found = open_manifest(manifest, tmp_path / "d")
    assert found.info.directory == str(earlier)
    assert (found.info.contents, found.info.copies) == ({}, ())
    assert "contents" not in describe_data(found)


def test_a_damaged_record_of_hashes_is_made_again(tmp_path):
    source = tmp_path / "f"
    source.write_bytes(b"x")
    first = file_hashes.hash_files([source], source)
    (record,) = (file_hashes.get_cache_folder() / "hashed").glob(f"{file_hashes._find_record(source).name}")
    for content in (
        "",
        "[]",
        '{"a": 1}',
        f'{{"{source}": [1]}}',
        f'{{"{source}": [1, 2, 3]}}',
        "[" * 200_000,
    ):
        record.write_text(content)
        assert file_hashes.hash_files([source, tmp_path / "none"], source) == [*first, ""]


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_equal_files_that_are_skipped_are_no_copies(write_manifest, tmp_path, content):
    manifest = write_manifest([*GOOD, "e.png,dog,y,train", "f.png,dog,y,test"])
    for name in ("e.png", "f.png"):
        (tmp_path / name).write_bytes(content)
    dataset = open_manifest(manifest, tmp_path / "d", max_bad_fraction=0.5)
    assert dataset.info.num_examples == {"train": 2, "val": 1, "test": 1}


def test_a_manifest_without_its_images_never_gets_those_of_another(tmp_path, encoded):
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        for row, letter in enumerate("abcd"):
            (tmp_path / name / f"{letter}.png").write_bytes(encoded(10 * number + row))
        (tmp_path / name / "m.csv").write_text("\n".join(["path,label,group,split", *GOOD]) + "\n")
    two = open_manifest(tmp_path / "two" / "m.csv", tmp_path / "d")
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    with pytest.raises(UsageError, match="lists 4 images that do not exist"):
        open_manifest(tmp_path / "one" / "m.csv", tmp_path / "d")
    assert open_manifest(tmp_path / "two" / "m.csv", tmp_path / "d").info == two.info
