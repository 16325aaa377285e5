"""The noise process: inverses, and agreement with diffusers."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsteer.diffusion.process import PREDICTIONS, PROCESSES, Process, process_from_scheduler_config

EVERY_PROCESS = [Process(name) for name in PROCESSES]
OF_BETAS = [Process("cosine"), Process("linear")]
THEIR_SCHEDULE = {"cosine": "squaredcos_cap_v2", "linear": "linear"}


def pictures(seed: int, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 2, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noise(seed: int, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 2, 4, 4, generator=torch.Generator().manual_seed(seed))


# ---- inverses --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    process=st.sampled_from([*EVERY_PROCESS, Process("edm", sigma_data=0.5)]),
    prediction=st.sampled_from(PREDICTIONS),
    ratio=st.floats(0.02, 50.0),
)
def test_from_x0_and_to_x0_are_inverses(process: Process, prediction: str, ratio: float) -> None:
    t = process.time_of(torch.full((3,), ratio, dtype=torch.float64))
    x0, x_t = pictures(1).double(), noise(2).double()
    output = process.from_x0(prediction, x0, x_t, t)
    torch.testing.assert_close(process.to_x0(prediction, output, x_t, t), x0, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(process=st.sampled_from(EVERY_PROCESS), prediction=st.sampled_from(PREDICTIONS), t=st.floats(1.0, 990.0))
def test_the_training_target_is_read_back_as_the_picture(process: Process, prediction: str, t: float) -> None:
    times = torch.full((3,), t, dtype=torch.float64)
    x0, eps = pictures(3).double(), noise(4).double()
    target = process.target(prediction, x0, eps, times)
    x_t = process.add_noise(x0, eps, times)
    torch.testing.assert_close(process.to_x0(prediction, target, x_t, times), x0, rtol=0, atol=1e-8)
    torch.testing.assert_close(process.from_x0(prediction, x0, x_t, times), target, rtol=0, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(process=st.sampled_from(EVERY_PROCESS), t=st.floats(0.5, 998.5))
def test_time_of_inverts_ratio(process: Process, t: float) -> None:
    time = torch.tensor(t, dtype=torch.float64)
    assert float(process.time_of(process.ratio(time))) == pytest.approx(t, abs=1e-6)


@pytest.mark.parametrize("process", EVERY_PROCESS, ids=lambda process: process.name)
def test_time_of_stays_inside_the_process(process: Process) -> None:
    times = process.time_of(torch.tensor([1e-9, 1e9, torch.inf], dtype=torch.float64))
    assert times[0] <= 0.001 and times[1] == pytest.approx(process.t_max, abs=1e-3) and times[2] == process.t_max


@pytest.mark.parametrize("process", EVERY_PROCESS, ids=lambda process: process.name)
def test_noise_grows_with_time_also_between_the_indices_of_a_table(process: Process) -> None:
    log_ratio = process.ratio(torch.linspace(0.1, process.t_max - 0.1, 5000, dtype=torch.float64)).log()
    assert (log_ratio.diff() > 0).all()


# ---- agreement with diffusers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", OF_BETAS, ids=lambda process: process.name)
def test_alphas_are_those_of_diffusers(process: Process) -> None:
    theirs = diffusers.DDPMScheduler(beta_schedule=THEIR_SCHEDULE[process.name]).alphas_cumprod
    alpha, sigma = process.alpha_sigma(torch.arange(1000))
    torch.testing.assert_close(alpha**2, theirs, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(sigma**2, 1 - theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("scheduler_class", [diffusers.DDPMScheduler, diffusers.DDIMScheduler])
@pytest.mark.parametrize("process", OF_BETAS, ids=lambda process: process.name)
def test_noising_and_velocity_are_those_of_diffusers(process: Process, scheduler_class: type) -> None:
    scheduler = scheduler_class(beta_schedule=THEIR_SCHEDULE[process.name])
    x0, eps, t = pictures(5, 4), noise(6, 4), torch.tensor([0, 1, 500, 999])
    torch.testing.assert_close(process.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t), rtol=0, atol=2e-5)
    torch.testing.assert_close(process.target("v", x0, eps, t), scheduler.get_velocity(x0, eps, t), rtol=0, atol=2e-5)


def test_flow_noising_is_that_of_diffusers() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    t = scheduler.timesteps[[0, 400, 999]]
    theirs = scheduler.scale_noise(pictures(7), t, noise(8))
    torch.testing.assert_close(Process("flow").add_noise(pictures(7), noise(8), t), theirs)


def test_edm_levels_scales_and_outputs_are_those_of_diffusers() -> None:
    process = Process("edm", sigma_data=0.5)
    scheduler = diffusers.EDMEulerScheduler(prediction_type="v_prediction", sigma_data=0.5)
    scheduler.set_timesteps(7)
    t = torch.linspace(1000, 0, 7, dtype=torch.float64)
    torch.testing.assert_close(process.alpha_sigma(t)[1].float(), scheduler.sigmas[:-1], rtol=1e-5, atol=0)
    x_t, output = noise(9, 7), noise(10, 7)
    for i, sigma in enumerate(scheduler.sigmas[:-1]):
        torch.testing.assert_close(process.input_scale(t[i]) * x_t, scheduler.precondition_inputs(x_t, sigma), check_dtype=False)
        theirs = scheduler.precondition_outputs(x_t, output, sigma)
        torch.testing.assert_close(process.to_x0("v", output, x_t, t[i]), theirs, check_dtype=False)


# ---- scheduler configs and settings ----------------------------------------------------------------------------------

ANOTHER_TABLE = Process("linear", train_steps=3, betas=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
@pytest.mark.parametrize("process", [*OF_BETAS, Process("cosine", train_steps=400), ANOTHER_TABLE], ids=repr)
def test_a_table_of_betas_goes_into_a_config_and_back(process: Process, prediction: str) -> None:
    config = diffusers.DDPMScheduler.from_config(process.scheduler_config(prediction)).config
    assert process_from_scheduler_config(dict(config)) == (process, prediction)


def test_flow_and_edm_go_into_a_config_and_back() -> None:
    flow = diffusers.FlowMatchEulerDiscreteScheduler.from_config(Process("flow").scheduler_config("flow")).config
    assert process_from_scheduler_config(dict(flow)) == (Process("flow"), "flow")
    edm = Process("edm", sigma_data=0.5, sigma_max=50.0)
    config = diffusers.EDMEulerScheduler.from_config(edm.scheduler_config("v")).config
    assert process_from_scheduler_config(dict(config)) == (edm, "v")


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_other_betas_are_read(schedule: str) -> None:
    scheduler = diffusers.DDPMScheduler(beta_schedule=schedule, beta_start=0.00085, beta_end=0.012)
    process, prediction = process_from_scheduler_config(dict(scheduler.config))
    assert prediction == "eps"
    torch.testing.assert_close(process.alpha_sigma(torch.arange(1000))[0] ** 2, scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "shift 3.0"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon"}, "v_prediction"),
        ({"_class_name": "DDPMScheduler", "prediction_type": "score"}, "score"),
        ({"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid"}, "sigmoid"),
        ({"_class_name": "DDPMScheduler", "rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_a_config_without_a_process_here_is_refused(config: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        process_from_scheduler_config(config)


@pytest.mark.parametrize("process", [*EVERY_PROCESS, ANOTHER_TABLE], ids=repr)
def test_a_process_survives_json(process: Process) -> None:
    read = Process(**json.loads(json.dumps(process.as_dict())))
    assert read == process
    assert torch.equal(read.ratio(torch.tensor(1.5)), process.ratio(torch.tensor(1.5)))


@pytest.mark.parametrize("wrong", [{"name": "vp"}, {"noise": "pink"}, {"name": "cosine", "noise": "uniform"}], ids=repr)
def test_wrong_settings_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"vp|pink|uniform"):
        Process(**wrong)
    with pytest.raises(ValueError, match="score"):
        Process().target("score", pictures(1), noise(1), torch.ones(3))


def test_coefficients_are_float32_unless_the_time_is_float64() -> None:
    for process in EVERY_PROCESS:
        for dtype in (torch.int64, torch.bfloat16, torch.float32):
            assert {c.dtype for c in process.alpha_sigma(torch.ones(2, dtype=dtype))} == {torch.float32}
        assert {c.dtype for c in process.alpha_sigma(torch.ones((), dtype=torch.float64))} == {torch.float64}


def test_sampling_starts_from_noise_of_the_right_size() -> None:
    start = torch.tensor(1000.0, dtype=torch.float64)
    assert [float(process.start_scale(start)) for process in EVERY_PROCESS] == pytest.approx([1.0, 1.0, 1.0, 80.0])
    assert float(Process("flow").start_scale(start / 2)) == pytest.approx(0.5)
