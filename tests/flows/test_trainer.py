"""The trainer: a killed run goes on exactly, processes share a batch, and mistakes are told at once."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from fewstep.data import ArrayDataset
from fewstep.flows import (
    FlowMatching,
    Independent,
    Learned,
    MinibatchOT,
    Mixed,
    Paired,
    Settings,
    Trainer,
    _run_folder,
)
from fewstep.models import load_network
from fewstep.networks import MLP, GaussianEncoder, UNet

#: A run that a test can afford: a learned coupling, dropout, two averages, several epochs.
SCRIPT = """
    import sys, torch
    from torch import nn
    from fewstep.data import ArrayDataset
    from fewstep.flows import FlowMatching, Learned, Settings, Trainer
    from fewstep.networks import MLP, GaussianEncoder

    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = MLP((3,), width=16, blocks=1)
        def forward(self, x, t):
            return nn.functional.dropout(self.net(x, t), 0.1, self.training)

    torch.manual_seed(0)
    flow, encoder = Dropping(), GaussianEncoder(MLP((3,), width=8, blocks=1, out_channels=6))
    data = ArrayDataset(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), name="points")
    settings = Settings(steps=150, batch=16, lr=1e-2, warmup=5, clip=1.0, ema=(200, 2000), accumulate=2,
                        log_every=7, validate_every=70, checkpoint_every=9, decay="cosine")
    Trainer(FlowMatching(flow, Learned(encoder, beta=1.0)), data, settings, out=sys.argv[1], validation=data,
            device="cpu", progress=False).run()
"""


def launch(out):
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def finish(monkeypatch, script, out):
    """Run a script to its end in this process, which has imported torch already."""
    monkeypatch.setattr(sys, "argv", ["script", str(out)])
    exec(textwrap.dedent(script), {"__name__": "__main__"})


@pytest.mark.filterwarnings("ignore:.*taken over from process")
def test_a_run_killed_at_any_moment_and_resumed_gives_the_weights_of_a_whole_one(tmp_path, monkeypatch):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(monkeypatch, SCRIPT, whole)
    for after in (2, 3):  # twice: soon after the first checkpoint, and later, between two
        process = launch(killed)
        deadline = time.monotonic() + 60
        while len(list(killed.glob("checkpoints/step-*"))) < min(after, 2) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        time.sleep(0.05 * (after - 2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (killed / "flow.safetensors").exists()
    finish(monkeypatch, SCRIPT, killed)

    for name in ("flow.safetensors", "encoder.safetensors", "checkpoints/step-00000150.safetensors"):
        expected, found = load_file(whole / name), load_file(killed / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), f"{name}: {key}"
    assert [line["step"] for line in metrics(whole)] == [line["step"] for line in metrics(killed)]


def test_an_interrupted_run_saves_its_step(tmp_path):
    process = launch(tmp_path / "run")
    while not list((tmp_path / "run").glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    saved = int(newest.stem.split("-")[1])
    assert saved % 9 or saved == 150 or saved == 9  # the very step, not only the last due one


def test_a_run_that_is_told_to_stop_saves_its_step(tmp_path):
    trainer = train(tmp_path, checkpoint_every=20)
    trainer.stop()
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001.safetensors"]


def points(count=64, seed=1):
    return ArrayDataset(torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)), name="points")


def network(seed=0):
    torch.manual_seed(seed)
    return MLP((3,), width=16, blocks=1)


def encoder():
    return GaussianEncoder(MLP((3,), width=8, blocks=1, out_channels=6))


def train(out, flow=None, data=None, coupling=None, validation=None, **settings):
    options = {"steps": 20, "batch": 16, "lr": 1e-2, "warmup": 2, "ema": (100,), "checkpoint_every": 5}
    return Trainer(
        FlowMatching(network() if flow is None else flow, coupling),
        data or points(),
        Settings(**{**options, **settings}),
        out=out,
        validation=validation,
        device="cpu",
        progress=False,
    )


@pytest.mark.parametrize(
    "coupling", [Independent, MinibatchOT, lambda: Learned(encoder(), 1.0), lambda: Mixed(encoder(), 1.0)]
)
def test_every_coupling_trains_and_leaves_a_network_to_load(tmp_path, coupling):
    flow = train(tmp_path, coupling=coupling()).run()
    loaded = load_network(tmp_path / "flow.safetensors")
    x, t = torch.randn(4, 3), torch.rand(4)
    torch.testing.assert_close(loaded(x, t), flow(x, t))
    assert not flow.training
    assert (tmp_path / "encoder.safetensors").exists() == (not isinstance(coupling, type))


def test_pairs_train_with_their_own_noises(tmp_path):
    class Pairs(ArrayDataset):
        def __getitem__(self, indices):
            x = super().__getitem__(indices)
            return x, 3 * x

    class Slope(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.zeros(1))

        def forward(self, x, t):
            return self.slope * x / (1 + 2 * t[:, None])  # x_t = (1 + 2t) x0, u = 2 x0

    data = Pairs(points()[range(64)], name="pairs")
    flow = train(tmp_path, Slope(), data, Paired(), steps=400, lr=0.05, ema=(500,)).run()
    assert flow.slope.item() == pytest.approx(2, abs=1e-2)
    with pytest.raises(ValueError, match="coupling: the data are pairs with their own noises"):
        train(tmp_path / "other", Slope(), data)


def test_the_best_and_the_last_checkpoints_are_kept(tmp_path):
    train(tmp_path, validation=points(seed=2), keep=2, validate_every=5, steps=23).run()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["best.safetensors", "step-00000020.safetensors", "step-00000023.safetensors"]
    losses = {
        line["step"]: line["validation_loss"] for line in metrics(tmp_path) if "validation_loss" in line
    }
    assert list(losses) == [5, 10, 15, 20, 23]
    best = min(losses, key=losses.get)
    facts = json.loads(_metadata(tmp_path / "checkpoints" / "best.safetensors"))
    assert facts["step"] == best
    assert facts["best"] == losses[best]


def _metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()["fewstep.checkpoint"]


def test_accumulated_parts_make_the_gradient_of_the_whole(tmp_path):
    """With a flow whose loss does not depend on what is drawn, one large batch and four parts agree."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(3))

        def forward(self, x, t):
            return self.mean.expand_as(x)

    class Zero(Independent):
        def couple(self, noise, x1, generator):
            return super().couple(torch.zeros_like(noise), x1, generator)

    means = [
        train(tmp_path / str(n), Mean(), coupling=Zero(), accumulate=n, steps=5).run().mean for n in (1, 4)
    ]
    torch.testing.assert_close(*means)


#: A training whose loss depends on the data alone, so that processes can be compared.
MEAN = """
    import sys, torch
    from torch import nn
    from fewstep.data import ArrayDataset
    from fewstep.flows import FlowMatching, Independent, Settings, Trainer

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(3))
        def forward(self, x, t):
            return self.mean.expand_as(x)

    class Zero(Independent):
        def couple(self, noise, x1, generator):
            return super().couple(torch.zeros_like(noise), x1, generator)

    data = ArrayDataset(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), name="points")
    settings = Settings(steps=20, batch=16, lr=1e-2, warmup=5, clip=1.0, ema=(200,), log_every=5)
    Trainer(FlowMatching(Mean(), Zero()), data, settings, out=sys.argv[1], device="cpu", progress=False).run()
"""


def test_two_processes_take_the_steps_of_one(tmp_path, monkeypatch):
    script = tmp_path / "mean.py"
    script.write_text(textwrap.dedent(MEAN))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path / "two")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    finish(monkeypatch, MEAN, tmp_path / "one")
    one, two = (load_file(tmp_path / run / "flow.safetensors")["mean"] for run in ("one", "two"))
    torch.testing.assert_close(two, one)
    assert one.abs().max() > 0.05
    # Losses are means over all processes, logged once.
    losses = [[line["loss"] for line in metrics(tmp_path / run) if "loss" in line] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1])


def test_worker_processes_change_nothing(tmp_path):
    flows = [train(tmp_path / str(n), network(), workers=n, steps=5).run() for n in (0, 2)]
    assert all(torch.equal(p, q) for p, q in zip(*(flow.parameters() for flow in flows), strict=True))


def test_every_average_is_written(tmp_path):
    train(tmp_path, ema=(100, 20), coupling=Learned(encoder(), 1.0)).run()
    names = {path.name for path in tmp_path.glob("*.safetensors")}
    assert names == {f"{name}{end}.safetensors" for name in ("flow", "encoder") for end in ("", "-20")}
    first, second = (load_network(tmp_path / f"flow{end}.safetensors") for end in ("", "-20"))
    assert not torch.equal(first.head.weight, second.head.weight)


def test_half_precision_trains(tmp_path):
    train(tmp_path, precision="bf16").run()
    values = load_file(tmp_path / "flow.safetensors").values()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in values)


@pytest.mark.filterwarnings("ignore:The .grad attribute", "ignore:.torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_networks_take_the_same_steps(tmp_path, monkeypatch, backend):
    """The losses are those without compilation to rounding, and so are the names of the weights."""
    compiled, compile = [], torch.compile

    def counting(call, **options):
        compiled.append(call.__self__)
        return compile(call, backend=backend, **options)

    monkeypatch.setattr(torch, "compile", counting)

    def run(out, **settings):
        flow, coupling = network(), Learned(encoder(), 1.0)
        train(out, flow, coupling=coupling, precision="no", log_every=1, **settings).run()
        assert set(load_file(out / "flow.safetensors")) == set(flow.state_dict())
        assert set(load_file(out / "encoder.safetensors")) == set(coupling.encoder.state_dict())
        return [line["loss"] for line in metrics(out) if "loss" in line]

    plain = run(tmp_path / "plain", steps=12)
    assert not compiled
    torch._dynamo.reset()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert run(tmp_path / "run", steps=12, compile=True) == pytest.approx(plain, rel=1e-5)
    assert [type(module).__name__ for module in compiled] == ["MLP", "GaussianEncoder"]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= before + 2
    # A compiled run may be resumed without compilation.
    longer = run(tmp_path / "run", steps=16)
    assert longer[:12] == pytest.approx(plain, rel=1e-5)
    assert longer[12:] == pytest.approx(run(tmp_path / "long", steps=16)[12:], rel=1e-4)


def test_a_run_may_be_prolonged_but_not_changed(tmp_path):
    train(tmp_path, steps=10).run()
    assert train(tmp_path, steps=15, log_every=3).folder.latest().name == "step-00000010.safetensors"
    train(tmp_path, steps=15).run()
    with pytest.raises(ValueError, match=r"settings lr was 0.01 and is 0.5\); train into another folder"):
        train(tmp_path, steps=15, lr=0.5)
    with pytest.raises(ValueError, match="coupling name was 'Independent' and is 'MinibatchOT'"):
        train(tmp_path, steps=15, coupling=MinibatchOT())
    with pytest.raises(ValueError, match="data count was 64 and is 65"):
        train(tmp_path, steps=15, data=points(65))
    with pytest.raises(ValueError, match="flow width was 16 and is 32"):
        train(tmp_path, MLP((3,), width=32, blocks=1), steps=15)
    with pytest.raises(ValueError, match=r"steps: .* has been trained for 15 steps already, more than 12"):
        train(tmp_path, steps=12)


def test_a_foreign_network_in_the_folder_is_told_by_its_tensors(tmp_path):
    class Anonymous(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 3))

        def forward(self, x, t):
            return self.layers(x)

    train(tmp_path, Anonymous(4), steps=5).run()
    assert (tmp_path / "flow.safetensors").exists()
    with pytest.raises(ValueError, match=r"is of another architecture; .*differs in \d+ tensors, such as"):
        train(tmp_path, Anonymous(5), steps=6)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(tmp_path, steps=5).run()
    path = tmp_path / "checkpoints" / "step-00000005.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000005.safetensors: not a readable checkpoint"):
        train(tmp_path, steps=6)


def test_a_full_disk_is_told_before_the_start_and_loses_nothing(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: full)
        with pytest.raises(
            OSError, match=r"checkpoints of this run need [\d,]+ bytes, but .* 1,000 bytes left"
        ):
            train(tmp_path / "full")

    trainer = train(tmp_path / "later", steps=12)
    save, times = _run_folder._write, []

    def failing(path, *rest):
        times.append(path)
        if len(times) > 1:
            raise OSError(f"{path}: could not be written (no space left on device).")
        save(path, *rest)

    monkeypatch.setattr(_run_folder, "_write", failing)
    with (
        pytest.warns(UserWarning, match="training goes on without this checkpoint"),
        pytest.raises(OSError, match=r"the last step could not be saved: .* it will go on from .*00000005"),
    ):
        trainer.run()
    assert trainer.folder.latest().name == "step-00000005.safetensors"


def test_a_loss_that_diverges_is_told_and_not_saved(tmp_path):
    class Exploding(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.calls = 0

        def forward(self, x, t):
            self.calls += 1
            return self.scale * x * (float("nan") if self.calls > 7 else 1.0)

    with pytest.raises(FloatingPointError, match=r"NaN or infinite between steps 5 and 10; lower lr"):
        train(tmp_path, Exploding(), log_every=5).run()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005.safetensors"]


def test_what_does_not_fit_is_told_at_once(tmp_path):
    with pytest.raises(ValueError, match=r"flow: returns shape \(2, 6\) for data of shape \(2, 3\)"):
        train(tmp_path, MLP((3,), width=8, blocks=1, out_channels=6))
    with pytest.raises(ValueError, match="encoder: must return a mean and a log-variance"):
        train(tmp_path, coupling=Learned(lambda x: (x[:, :1], x[:, :1])))
    with pytest.raises(ValueError, match=r"validation: has samples of shape \(2,\), but the data \(3,\)"):
        train(tmp_path, validation=ArrayDataset(torch.zeros(4, 2), name="other"))
    with pytest.raises(ValueError, match=r"flip: needs images"):
        train(tmp_path, flip=True)


def test_the_same_seed_is_the_same_run(tmp_path):
    a, b, c = (train(tmp_path / str(k), network(0), seed=seed).run() for k, seed in enumerate((0, 0, 1)))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


def test_pictures_are_previewed(tmp_path):
    data = ArrayDataset(torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8), name="noise")
    train(tmp_path, UNet(1, 8, (1,), 1, 2), data, steps=2, batch=4, flip=True, channels_last=True).run()
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    kinds = ("estimates", "inversions", "samples", "trajectories")
    assert names == [f"step-00000002-{kind}.png" for kind in kinds]


class _Line(torch.nn.Module):
    """A flow on straight lines: every picture moves by the same."""

    def forward(self, x, t):
        return 0 * x + 0.5


def test_data_are_previewed_on_their_way_to_noise_and_with_the_noises_of_an_encoder(tmp_path):
    data = torch.linspace(-0.4, 0.4, 3)[:, None, None, None].expand(3, 1, 4, 4)
    objective = FlowMatching(_Line(), Learned(lambda x: (x - 0.5, torch.full_like(x, -60.0))))
    objective.eval().validate([(data, None)], torch.Generator())
    objective.preview((1, 4, 4), torch.device("cpu"), tmp_path / "step-1")

    def tiles(kind, columns):
        with Image.open(tmp_path / f"step-1-{kind}.png") as picture:
            pixels = torch.from_numpy(np.array(picture.convert("L"))).double() / 127.5 - 1
        side = (pixels.shape[1] + 0.0) / columns
        rows = round(pixels.shape[0] / side)
        return [
            [float(pixels[int((i + 0.5) * side), int((j + 0.5) * side)]) for j in range(columns)]
            for i in range(rows)
        ]

    back = [[x - k / 8 * 0.5 for k in range(9)] for x in (-0.4, 0.0, 0.4)]
    assert torch.allclose(torch.tensor(tiles("inversions", 9)), torch.tensor(back), atol=0.01)
    x = torch.tensor([-0.4, 0.0, 0.4])
    coupled = torch.stack([x, x - 0.5, x, x])  # data, noises, and samples in 4 and 32 calls
    assert torch.allclose(torch.tensor(tiles("coupled", 3)), coupled, atol=0.01)


def test_points_in_the_plane_are_previewed(tmp_path):
    data = ArrayDataset(torch.randn(16, 2), name="plane")
    train(tmp_path, MLP((2,), width=8, blocks=1), data, steps=2).run()
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["step-00000002-samples.png"]


def test_a_device_or_tracker_that_is_not_there_is_told(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="device: training is on cpu, which accelerate chose, not on meta"):
        Trainer(FlowMatching(network()), points(), out=tmp_path, device="meta")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"needs the package 'wandb'.*fewstep\[track\]"):
        train(tmp_path, trackers=("wandb",))


def test_trackers_receive_the_metrics(tmp_path):
    pytest.importorskip("tensorboard", reason="logs to TensorBoard, which is not installed")
    train(tmp_path, trackers=("tensorboard",), log_every=5).run()
    assert list(Path(tmp_path).rglob("events.out.tfevents*"))


def test_two_runs_cannot_train_in_one_folder(tmp_path):
    process = launch(tmp_path / "run")
    while not list((tmp_path / "run").glob("checkpoints/step-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(ValueError, match=f"is being written by process {process.pid} on"):
        train(tmp_path / "run")
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert not (tmp_path / "run" / ".fewstep.lock").exists()


def test_other_things_in_the_folder_are_told_once(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.warns(UserWarning, match=r"holds other things, such as thesis\.tex, and"):
        train(tmp_path, steps=5).run()
    train(tmp_path, steps=6).run()
    assert (tmp_path / "thesis.tex").exists()


class Tied(nn.Module):
    """Weights of one memory in two layers, as language models have them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x, t):
        return self.second(self.first(x).tanh()) * t[:, None]


def test_tied_weights_train_are_exported_and_resume(tmp_path):
    flow = train(tmp_path, Tied()).run()
    saved = load_file(tmp_path / "flow.safetensors")
    assert torch.equal(saved["first.weight"], saved["second.weight"])
    again = Tied()
    again.load_state_dict(saved)
    x, t = torch.randn(4, 3), torch.rand(4)
    assert torch.equal(again(x, t), flow(x, t))
    longer = train(tmp_path, Tied(), steps=25)
    assert longer.step == 20
    longer.run()


@pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning")
def test_a_compiled_flow_is_exported_and_resumed_under_its_plain_names(tmp_path):
    bare, compiled = network(), torch.compile(network(), backend="eager")
    train(tmp_path / "bare", bare, steps=10).run()
    train(tmp_path / "compiled", compiled, steps=5).run()
    assert set(load_file(tmp_path / "compiled" / "flow.safetensors")) == set(bare.state_dict())
    # Resumed without compilation, then with it.
    train(tmp_path / "compiled", network(), steps=8).run()
    train(tmp_path / "compiled", torch.compile(network(), backend="eager"), steps=10).run()
    loaded, expected = (load_network(tmp_path / run / "flow.safetensors") for run in ("compiled", "bare"))
    x, t = torch.randn(4, 3), torch.rand(4)
    torch.testing.assert_close(loaded(x, t), expected(x, t))


def test_pictures_from_0_to_1_are_said_before_training(tmp_path):
    data = ArrayDataset(torch.rand(8, 1, 8, 8), name="dark")
    network = UNet(1, 8, (1,), 1, 2)
    with pytest.warns(UserWarning, match=r"dark: .* as in \[-1, 1\], and these hold no value below 0"):
        Trainer(
            FlowMatching(network),
            data,
            Settings(steps=1, batch=4),
            out=tmp_path,
            device="cpu",
            progress=False,
        )
