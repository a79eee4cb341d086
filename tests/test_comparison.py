"""A case beside earlier ones of the same patient pseudonym: which ones, and what is marked as changed."""

import re
from datetime import UTC, datetime
from html import unescape
from typing import Any

from django.template.loader import render_to_string

from accounts.models import Laboratory, User
from classifier import services
from classifier.comparison import EARLIER_SHOWN, comparison_of, earlier_cases
from classifier.differential import Differential, Tally, differential
from classifier.laboratory_settings import rules_of, settings_of
from classifier.models import Case, CaseStatus, ModelVersion
from classifier.views.differential import differential_context
from tests.factories import image_in_state, prediction_of


def opened(actor: User, number: str, **fields: Any) -> Case:
    return services.open_case(actor=actor, accession_number=number, **{"patient_pseudonym": "P-7", **fields})


def counted(**counts: int) -> Tally:
    return Tally(reviewed=counts, pre_classified={})


def test_earlier_cases_are_those_of_the_same_pseudonym_and_laboratory_the_newest_first(
    technologist: User, stranger: User
) -> None:
    first, second = opened(technologist, "A-1"), opened(technologist, "A-2")
    opened(technologist, "A-3", patient_pseudonym="P-8")
    opened(technologist, "A-4", patient_pseudonym="")
    opened(stranger, "A-5")
    voided = opened(technologist, "A-6")
    Case.objects.filter(pk=voided.pk).update(status=CaseStatus.VOID)
    current = opened(technologist, "A-7")
    opened(technologist, "A-8")

    assert earlier_cases(current, technologist) == [second, first]
    assert earlier_cases(current, stranger) == []


def test_specimen_that_was_collected_later_is_no_earlier_case(technologist: User) -> None:
    current = opened(technologist, "A-1", collected_at=datetime(2026, 3, 1, tzinfo=UTC))
    before = opened(technologist, "A-2", collected_at=datetime(2026, 2, 1, tzinfo=UTC))
    opened(technologist, "A-3", collected_at=datetime(2026, 4, 1, tzinfo=UTC))

    assert earlier_cases(current, technologist) == [before]


def test_at_most_five_earlier_cases_are_shown(technologist: User) -> None:
    cases = [opened(technologist, f"A-{number}") for number in range(7)]

    assert earlier_cases(cases[-1], technologist) == cases[-2 : -2 - EARLIER_SHOWN : -1]


def test_case_without_a_pseudonym_is_compared_with_none_and_costs_nothing(
    case: Case, reader: User, django_assert_num_queries: Any
) -> None:
    rules = rules_of(settings_of(case.laboratory_id))
    with django_assert_num_queries(0):
        assert comparison_of(case, reader, differential(Tally({}, {}), rules), rules) is None


def compared_changes(now: Differential, before: dict[str, int], technologist: User) -> dict[str, str]:
    """How each type of this case's differential is marked beside one earlier case with these reviewed cells."""
    earlier, current = opened(technologist, "A-1"), opened(technologist, "A-2")
    for label, n in before.items():
        for _ in range(n):
            image_in_state("reviewed", case=earlier, uploaded_by=technologist, final_label=label)
    comparison = comparison_of(current, technologist, now, rules_of(settings_of(current.laboratory_id)))
    assert comparison is not None
    assert [each.case for each in comparison.earlier] == [earlier]
    return {row.label: row.earlier[0].change for row in comparison.types}


def test_share_that_differs_by_more_than_sampling_explains_is_marked(
    technologist: User, laboratory: Laboratory
) -> None:
    """90 of 100 against 4 of 10 neutrophils, 0 of 100 against 6 of 10 lymphocytes; basophils occur in neither."""
    now = differential(counted(neutrophil=90, monocyte=10), rules_of(settings_of(laboratory.pk)))

    changes = compared_changes(now, {"neutrophil": 4, "lymphocyte": 6}, technologist)

    assert changes == {"neutrophil": "higher", "lymphocyte": "lower", "monocyte": "", "eosinophil": "", "basophil": ""}


def test_type_that_only_the_earlier_case_had_is_compared_too(technologist: User, laboratory: Laboratory) -> None:
    now = differential(counted(neutrophil=100), rules_of(settings_of(laboratory.pk)))

    changes = compared_changes(now, {"neutrophil": 2, "myelocyte": 6}, technologist)

    assert changes["immature_granulocyte"] == "lower"


def test_nothing_counted_is_no_change(technologist: User, laboratory: Laboratory) -> None:
    now = differential(counted(), rules_of(settings_of(laboratory.pk)))

    assert set(compared_changes(now, {"neutrophil": 3}, technologist).values()) == {""}


def test_comparison_costs_two_queries_and_names_both_counts(
    technologist: User, model_version: ModelVersion, django_assert_num_queries: Any
) -> None:
    first, second = opened(technologist, "A-0"), opened(technologist, "A-1")
    current = opened(technologist, "A-2")
    for case, label, n in ((first, "neutrophil", 1), (second, "lymphocyte", 4), (current, "neutrophil", 3)):
        for _ in range(n):
            image = image_in_state("classified", case=case, uploaded_by=technologist)
            prediction_of(image, model_version, label=label, suggestion=label)
    context = differential_context(current, technologist)
    with django_assert_num_queries(2):
        html = unescape(render_to_string("classifier/_differential_comparison.html", context))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace(" ,", ",")

    assert re.search(r"This case n 3 A-1 \d+ \w+ \d{4}, n 4 AI, not verified A-0 .* n 1 AI, not verified", text)
    assert "Neutrophil 100.0 0.0 now higher ↑ 100.0 Lymphocyte" in text
