"""What hfsoup promises, and the tests that prove it; `scripts/test --soak` prints this as a table of figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Promise:
    """A promise in a line, what its long proof does, and its tests, each `file::test` without parameters."""

    text: str
    proof: str
    tests: tuple[str, ...]


PROMISES = (
    Promise(
        "Interrupt it at any time: the same command goes on and ends with the same bytes",
        "200 seeded kill points, 40 from Hub to Hub, 3 of every kind of bake: no torn output or push, no lost score",
        (
            "test_resume.py::test_killed_at_any_point_it_goes_on_and_ends_with_the_same_bytes",
            "test_resume.py::test_killed_while_it_pulls_scores_or_pushes_it_goes_on",
            "test_every_bake.py::test_killed_anywhere_it_goes_on",
        ),
    ),
    Promise(
        "An output is complete or untouched, whatever the disk does",
        "every write x disk full, I/O error, read-only, and every kind of bake: the old output byte for byte",
        (
            "test_atomic.py::test_a_failing_write_leaves_the_old_output_as_it_was",
            "test_every_bake.py::test_a_failing_write_is_one_error_and_changes_nothing",
        ),
    ),
    Promise(
        "Every byte that is used was hashed",
        "one flipped bit in every needed file, on the server and in the cache",
        ("soak/test_hub_matrix.py::test_flips", "test_hub_lies.py::test_a_flip_on_the_server_is_caught"),
    ),
    Promise(
        "One commit per ingredient, whoever pushes meanwhile",
        "a push before each request of a bake: no mixed bake",
        ("test_hub_lies.py::test_one_commit_per_ingredient",),
    ),
    Promise(
        "No code of an ingredient, dataset or metric runs",
        "pickle payloads: no marker file",
        ("test_hostile_pickles.py::test_no_payload_runs",),
    ),
    Promise(
        "Nothing outside ingredient, cache and output is read or written",
        "hostile names, headers and indexes",
        (
            "test_hostile_checkpoints.py::test_an_index_cannot_reach_outside",
            "test_hub_lies.py::test_a_hostile_name_in_a_listing_is_not_used",
            "test_hub_lies.py::test_a_hostile_header_writes_nothing_outside_the_cache",
        ),
    ),
    Promise(
        "A file built to exhaust the machine costs little",
        "each bomb within 2 GB over the baseline and 10 s of CPU",
        ("test_hostile_checkpoints.py::test_a_bomb_costs_little", "test_hostile_pickles.py::test_bombs_cost_little"),
    ),
    Promise(
        "It never hangs",
        "silence at every request ends within 120 s, Ctrl-C within 5 s",
        (
            "soak/test_hub_matrix.py::test_a_stall_with_the_real_time_outs",
            "test_hub_misbehaves.py::test_ctrl_c_during_a_stall",
        ),
    ),
    Promise(
        "Never a quietly wrong number",
        "bad checkpoints refused, models that their files do not fill never scored",
        (
            "test_hostile_checkpoints.py::test_a_bad_checkpoint_is_refused",
            "test_hostile_checkpoints.py::test_a_model_that_its_file_does_not_fill_is_never_scored",
        ),
    ),
    Promise(
        "The token stays home",
        "a whole run at its loudest: not printed, not written, sent to the Hub alone",
        (
            "test_secrets.py::test_a_whole_run_at_its_loudest",
            "test_network.py::test_nothing_but_the_hub_is_connected_to",
        ),
    ),
    Promise(
        "A push is complete or absent, and never over somebody else's",
        "every request of a push x every refusal and a dropped reply",
        (
            "soak/test_hub_matrix.py::test_push_once",
            "soak/test_hub_matrix.py::test_push_for_good",
            "test_push_misbehaves.py::test_somebody_elses_push_is_not_overwritten",
        ),
    ),
    Promise(
        "A soup can be baked again from its record, and any change to it is found",
        "tampered, missing, linked and extra loadable files fail; every kind of bake, two at once, on any threads",
        (
            "test_every_bake.py::test_two_at_once_and_any_threads_give_the_same_bytes_which_verify",
            "test_verify.py::test_a_soup_on_the_hub_is_verified_from_its_pinned_ingredients",
            "test_verify.py::test_what_was_tampered_with_is_named",
        ),
    ),
    Promise(
        "Nothing that a record says grants trust",
        "every field of soup.json and evaluation.json with hostile values: no file read, no host asked, no crash",
        (
            "test_records.py::test_what_is_only_shown_is_only_text",
            "test_records.py::test_a_record_cannot_contradict_itself",
            "test_records.py::test_options_grant_nothing",
            "test_records.py::test_a_place_is_a_commit_on_the_hub",
            "test_records.py::test_a_dataset_is_a_commit_on_the_hub",
            "test_records.py::test_a_file_is_inside_the_folder",
            "test_records.py::test_a_file_asks_for_what_only_a_flag_allows",
            "test_records.py::test_a_private_base_is_of_one_owner",
            "test_metrics.py::test_a_record_does_not_grant_trust",
            "test_records.py::test_no_value_of_a_field_does_harm",
        ),
    ),
    Promise(
        "The process of whoever imports it is left as it was",
        "HTTP client, logging, environment, threads, random state and more after each kind of bake",
        (
            "test_bystander.py::test_a_process_is_left_as_it_was",
            "test_bystander.py::test_a_process_is_left_as_it_was_by_every_kind_of_bake",
        ),
    ),
    Promise(
        "Offline works with what is cached",
        "the same bytes and scores without one request; what is missing or damaged is named",
        (
            "test_offline.py::test_a_bake_of_commits_and_a_dataset_that_are_cached",
            "test_offline.py::test_a_dataset_of_which_only_the_images_are_cached",
            "test_offline.py::test_branches_that_the_cache_knows",
            "test_offline.py::test_what_is_missing_is_named",
            "test_offline.py::test_a_cache_that_holds_a_repository_in_part",
            "test_offline.py::test_damage_is_caught_offline_too",
            "test_offline.py::test_a_kind_of_bake_works_offline",
        ),
    ),
    Promise(
        "The disk and memory guards tell the truth",
        "14 kinds of bakes wrote what the dry run said within 20 %, and larger models took what it said within a third",
        (
            "test_guards.py::test_a_bake_writes_what_it_said",
            "test_guards.py::test_a_disk_that_is_a_little_too_small_is_refused_with_the_number_of_the_plan",
            "test_guards.py::test_a_bake_takes_the_memory_that_it_said",
            "test_guards.py::test_memory_grows_with_the_images_that_are_scored",
            "test_guards.py::test_a_bake_is_refused_by_what_its_control_group_has_left",
        ),
    ),
)  # fmt: skip


def table(outcomes: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """One line a promise: how many of its cases held. `outcomes` are ids below tests/ with parameters, and verdicts."""
    known = list(outcomes)
    for number, promise in enumerate(PROMISES, start=1):
        cases = [held for test, held in known if test.split("[")[0] in promise.tests]
        yield f"{number:>2} | {promise.text} | {promise.proof} | {sum(cases)} of {len(cases)} cases"
