"""benchmarks/speed.py, rehearsed: its tables, what its numbers have to do with each other, and its counts of FLOP."""

import jax
import numpy as np
import pytest
from benchmark_modules import module


def read_tables(text: str) -> list[list[dict[str, str]]]:
    """Reads Markdown's tables: for each one, a dict per row."""
    tables, header = [], None
    for line in text.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if header is None:
            header = cells
            tables.append([])
        elif set(cells) != {"---"}:
            assert len(cells) == len(header), line
            tables[-1].append(dict(zip(header, cells, strict=True)))
    return tables


def test_all_parts_are_rehearsed(capsys, tmp_path):
    output = tmp_path / "speed.md"
    module("speed").main(["--quick", "--threads", "1", "--output", str(output)])
    text = capsys.readouterr().out
    assert output.read_text() == text and f"JAX {jax.__version__}, float32" in text and "RTX 4090" in text
    table5, whole, bundled, ratios, parts = read_tables(text)

    assert [row["output"] for row in table5] == ["128 x 128", "192 x 192"]
    assert [row["paper's FPS"] for row in table5] == ["0.2568", "0.251"]
    for row in table5:
        total = sum(float(row[name]) for name in ("sampling s", "D s", "f_theta s"))
        np.testing.assert_allclose(float(row["FPS"]), int(row["batch"]) / total, rtol=2e-3)
    np.testing.assert_allclose(float(whole[0]["FPS"]), 1 / float(whole[0]["seconds"]), rtol=2e-3)

    assert [row["model"] for row in bundled] == ["emoji", "photos"]
    for row, side in zip(bundled, (64, 64), strict=True):
        per_minute = float(row["images/min"])
        np.testing.assert_allclose(per_minute * float(row["seconds"]), 60, rtol=2e-3)
        np.testing.assert_allclose(float(row["megapixels/min"]), per_minute * side**2 / 1e6, rtol=2e-3)

    assert [row["network"] for row in ratios] == ["E", "U-Net, one evaluation", "D", "f_theta, 64 x 64"]
    for row in ratios:
        quotient = float(row["PyTorch s"]) / float(row["ours s"])
        np.testing.assert_allclose(float(row["PyTorch / ours"]), quotient, rtol=2e-3)

    assert [row["part"].split(",")[0] for row in parts] == ["E", "U-Net", "D", "f_theta"]
    for row in parts:
        count, rate = float(row["TFLOP"]), float(row["TFLOP/s"])
        assert count > 0 and float(row["host MiB"]) > 0 and row["device MiB"] == "-"
        np.testing.assert_allclose(rate, count / float(row["seconds"]), rtol=2e-3)


def test_rows_that_would_begin_too_late_are_named(capsys):
    module("speed").main(["--quick", "--only", "b", "--minutes", "0"])
    (bundled,) = read_tables(capsys.readouterr().out)
    assert [row["model"] for row in bundled] == ["emoji", "photos"]
    assert {row["seconds"] for row in bundled} == {"no time left"}


def test_an_unknown_part_is_an_error(capsys):
    with pytest.raises(SystemExit):
        module("speed").main(["--only", "a,x"])
    assert "--only takes some of a,b,c,d, got a,x" in capsys.readouterr().err


def test_the_count_of_flop_is_that_of_a_convolution():
    x, kernel = np.zeros((2, 12, 14, 5), np.float32), np.zeros((3, 3, 5, 7), np.float32)
    numbers = ("NHWC", "HWIO", "NHWC")
    convolve = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=numbers))
    call = module("speed_networks").Call(convolve, (x, kernel))
    assert call.flops() == 2 * (2 * 10 * 12 * 7) * (3 * 3 * 5)  # a multiplication and an addition each
    assert call().shape == (2, 10, 12, 7)


def test_the_peak_is_the_data_sheets_or_what_is_given_or_measured(monkeypatch):
    networks = module("speed_networks")
    assert networks.peak("float32", 2.5) == (2.5e12, "2.5 TFLOP/s, as given")
    rate, source = networks.peak("float32", None, side=64)
    assert rate > 0 and "measured" in source

    class H200:
        device_kind = "NVIDIA H200"

    monkeypatch.setattr(networks.jax, "devices", lambda: [H200()])
    assert networks.peak("bfloat16", None)[0] == 989e12


def test_an_ncnn_network_is_read_and_run(tmp_path):
    torch = pytest.importorskip("torch")
    peers, rng = module("speed_peers"), np.random.default_rng(0)
    wide, narrow = rng.normal(size=(4, 3, 3, 3)).astype(np.float16), rng.normal(size=(3, 4, 1, 1)).astype(np.float32)
    biases = [rng.normal(size=n).astype(np.float32) for n in (4, 3)]
    lines = (
        "Input x 0 1 data",
        "Convolution a 1 1 data 1 0=4 1=3 4=1 5=1 6=108 9=2 -23310=1,0.2",
        "Convolution b 1 1 1 2 0=3 1=1 5=1 6=12",
        "Split c 1 2 2 3 4",
        "Eltwise d 2 1 3 4 5 0=1 -23301=2,0.25,0.5",
        "Interp e 1 1 5 6 0=1 1=2 2=2",
    )
    (tmp_path / "net.param").write_text("\n".join(["7767517", "6 7", *lines]))
    mark = peers.HALF.to_bytes(4, "little")
    blob = mark + wide.tobytes() + biases[0].tobytes() + bytes(4) + narrow.tobytes() + biases[1].tobytes()
    (tmp_path / "net.bin").write_bytes(blob)
    x = torch.rand(1, 3, 5, 6)
    a, b, c, d = (torch.tensor(np.float32(y)) for y in (wide, biases[0], narrow, biases[1]))
    y = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(x, a, b, padding=1), 0.2)
    y = 0.75 * torch.nn.functional.conv2d(y, c, d)
    y = y.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(peers.run_ncnn(peers.load_ncnn(tmp_path / "net"), x), y)
    (tmp_path / "net.bin").write_bytes(blob + bytes(4))
    with pytest.raises(ValueError, match="bytes, but its .param names"):
        peers.load_ncnn(tmp_path / "net")
