"""Actors on a skewed mix: the mix is what it says, and what is measured and shown is what was trained."""

import numpy as np
import pytest
from fake_study import fake_actors
from hypothesis import given
from hypothesis import strategies as st

from amarl_core import actors
from amarl_core.actor_gain import FORMS, RECORD, busiest_service, measure, skewed
from amarl_core.actor_plots import actors_answer, actors_figure, actors_table, least_ratios, load_actors, ratios
from amarl_core.errors import AmarlError
from amarl_core.look import Note
from amarl_core.runs import write_frame


@given(service=st.sampled_from(["video", "ar", "voice"]), share=st.floats(0.05, 0.95))
def test_a_skewed_mix_has_the_share_and_the_load_it_says(toy, service, share):
    mixed = skewed(toy, service, share)
    requests = mixed.traffic.rate_per_s[0].sum(axis=(1, 2))
    assert requests[mixed.service_ids.index(service)] / requests.sum() == pytest.approx(share)
    assert mixed.traffic.offered_kbps()[0].sum() == pytest.approx(toy.traffic.offered_kbps()[0].sum())
    others = [s for s, name in enumerate(toy.service_ids) if name != service]
    factor = (mixed.traffic.rate_per_s / toy.traffic.rate_per_s)[0, others]
    assert np.nanmax(factor) == pytest.approx(np.nanmin(factor)), "the others keep their mix, hours and places"


def test_a_skewed_day_is_drawn_so(toy):
    day = skewed(toy, "voice", 0.8).training_trace(seed=0, days=1)
    assert (day.service == toy.service_ids.index("voice")).mean() == pytest.approx(0.8, abs=0.03)


def test_a_skewed_scenario_is_not_taken_for_the_one_it_came_from(toy):
    mixed = skewed(toy, "voice")
    assert mixed.digest not in (toy.digest, skewed(toy, "ar").digest, skewed(toy, "voice", 0.5).digest)
    assert mixed.name == "toy, 75 % voice"


def test_a_mix_that_cannot_be_is_refused(toy):
    with pytest.raises(AmarlError, match="'iot'; expected one of video, ar, voice"):
        skewed(toy, "iot")
    for share in (0, 1, -0.5):
        with pytest.raises(AmarlError, match="above 0 and below 1"):
            skewed(toy, "ar", share)


@pytest.fixture(scope="module")
def measured(toy):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors, "usable_cores", lambda: 2)
        return measure(skewed(toy, busiest_service(toy)), repeats=2, days=1)


def test_every_form_is_trained_in_turn_on_the_same_requests(measured):
    assert measured["form"].tolist() == [*FORMS, *list(FORMS)[::-1]]
    assert (measured["violations"] == 0).all() and measured["gos"].between(50, 100).all()
    by_form = measured.groupby("form")
    assert by_form["actors"].first().to_dict() == {"sarl": 1, "one": 1, "by_load": 2}
    assert by_form["share"].first()["sarl"] == 100 and (measured["share"] > 50).all()


def test_what_is_shown_is_what_was_measured(tmp_path):
    write_frame(tmp_path / RECORD, fake_actors())
    rows = load_actors(tmp_path)
    assert ratios(rows).median().to_dict() == pytest.approx({"sarl": 1.0, "one": 0.8, "by_load": 0.55})
    assert least_ratios(rows) == {"one": pytest.approx(0.78), "by_load": 0.5}
    says = "78 % of the decisions, one actor for it trains in 0.80 of SARL's time, 2 actors in 0.55"
    picture = actors_figure(rows)
    assert says in picture.alt.replace("\n", " ") and "n = 5 repeats" in picture.caption
    table = actors_table(rows).frame.set_index("")
    assert table["× SARL"].tolist() == ["1", "0.80 [0.80, 0.80]", "0.55 [0.55, 0.55]"]
    assert (table["violations"] == "0").all()
    assert "0.80 of SARL's time. 2 actors" in actors_answer(rows).text


def test_a_missing_record_is_a_note_with_the_remedy(tmp_path):
    note = load_actors(tmp_path)
    assert isinstance(note, Note) and "amarl_core.steps actors" in note.text
    assert actors_figure(note) is actors_table(note) is actors_answer(note) is note
