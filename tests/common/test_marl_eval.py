import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presage.common.marl_eval import SeedResult, from_marl_eval, read_evaluations, to_marl_eval, write_evaluations

names = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=8)
numbers = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4)


@st.composite
def seed_results(draw: st.DrawFn) -> list[SeedResult]:
    keys = draw(st.lists(st.tuples(names, names, names, st.integers(0, 99)), unique=True, max_size=4))
    results = []
    for environment, task, algorithm, seed in keys:
        steps = sorted(draw(st.sets(st.integers(0, 10**6), max_size=12)))
        results.append(
            SeedResult(
                environment=environment, task=task, algorithm=algorithm, seed=seed,
                evaluations=[(step, {"return": draw(numbers), "length": draw(numbers)}) for step in steps],
                absolute=draw(st.sampled_from([{}, {"return": [1.5, 2.5]}])),
            )
        )  # fmt: skip
    return results


def result(seed: int = 0, algorithm: str = "masac") -> SeedResult:
    return SeedResult(
        environment="mpe", task="spread", algorithm=algorithm, seed=seed,
        evaluations=[(500, {"return": [-3.0, -4.0]}), (1000, {"return": [-2.0, -1.0]})],
        absolute={"return": [-1.0] * 4},
    )  # fmt: skip


def test_the_schema() -> None:
    assert to_marl_eval([result(3)]) == {
        "mpe": {
            "spread": {
                "masac": {
                    "seed_3": {
                        "step_0": {"step_count": 500, "return": [-3.0, -4.0]},
                        "step_1": {"step_count": 1000, "return": [-2.0, -1.0]},
                        "absolute_metrics": {"return": [-1.0, -1.0, -1.0, -1.0]},
                    }
                }
            }
        }
    }


@settings(max_examples=25)
@given(seed_results())
def test_what_is_written_reads_back(results: list[SeedResult]) -> None:
    found = from_marl_eval(json.loads(json.dumps(to_marl_eval(results))))
    assert len(found) == len(results)
    assert all(each in found for each in results)


def test_evaluations_come_back_in_the_order_of_their_env_steps() -> None:
    data = {"e": {"t": {"a": {"run_7": {"step_10": {"step_count": 9}, "step_2": {"step_count": 4}}}}}}
    (found,) = from_marl_eval(data)
    assert found.seed == 7
    assert [steps for steps, _ in found.evaluations] == [4, 9]


def test_two_results_of_one_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="two results of 'masac' on 'spread' with seed 0"):
        to_marl_eval([result(), result()])


def test_env_steps_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a', seed 1: .* must ascend, got \[5, 5\]"):
        SeedResult(environment="e", task="t", algorithm="a", seed=1, evaluations=[(5, {}), (5, {})])


@pytest.mark.parametrize(
    "data",
    [{"e": 3}, {"e": {"t": {"a": {"seed_x": {}}}}}, {"e": {"t": {"a": {"seed_1": {"step_0": {"return": [1.0]}}}}}}],
    ids=["depth", "seed", "steps"],
)
def test_data_of_another_shape_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not that of an evaluation file"):
        from_marl_eval(data)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluations(path, [result(0)])
    write_evaluations(path, [result(1), result(2)])
    assert read_evaluations(path) == [result(1), result(2)]
    diverged = SeedResult(
        environment="e", task="t", algorithm="a", seed=0, evaluations=[(1, {"return": [float("nan")]})]
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_evaluations(path, [diverged])
    assert read_evaluations(path) == [result(1), result(2)]
