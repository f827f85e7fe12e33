"""Collections, and lists by base model, through huggingface_hub's client."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import HfHubHTTPError

from hfsoup.localhub import LocalHub


def test_a_collection(api: HfApi, repo: str) -> None:
    """Repos and collections are added, described, moved and taken out; a slug keeps its id when the title changes."""
    data = api.create_repo(f"{repo}-data", repo_type="dataset").repo_id
    other = api.create_collection(f"Other of {repo}").slug
    made = api.create_collection(f"Runs of {repo}", description="all seeds")
    assert (made.description, made.items, made.private) == ("all seeds", [], False)
    assert made.slug.startswith("ann/runs-of-ann-repo-")
    api.add_collection_item(made.slug, repo, "model", note="<b>first</b>")
    api.add_collection_item(made.slug, data, "dataset")
    api.add_collection_item(made.slug, other, "collection")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.add_collection_item(made.slug, repo, "model")
    api.add_collection_item(made.slug, repo, "model", exists_ok=True)
    with pytest.raises(HfHubHTTPError, match="404"):
        api.add_collection_item(made.slug, "ann/absent", "model")
    items = api.get_collection(made.slug).items
    assert [(item.item_id, item.item_type, item.position) for item in items] == [
        (repo, "model", 0),
        (data, "dataset", 1),
        (other, "collection", 2),
    ]
    assert items[0].note == "<b>first</b>"
    api.update_collection_item(made.slug, items[0].item_object_id, position=2, note="last")
    api.delete_collection_item(made.slug, items[1].item_object_id)
    renamed = api.update_collection_metadata(made.slug, title=f"Seeds of {repo}", theme="pink")
    assert renamed.slug.rpartition("-")[2] == made.slug.rpartition("-")[2]
    assert [(item.item_id, item.note) for item in api.get_collection(made.slug).items] == [
        (other, None),
        (repo, "last"),
    ]
    assert [item.slug for item in api.list_collections(owner="ann", item=f"models/{repo}")] == [renamed.slug]
    api.delete_collection(made.slug)
    api.delete_collection(made.slug, missing_ok=True)
    with pytest.raises(HfHubHTTPError, match="404"):
        api.get_collection(made.slug)


def test_a_title_is_used_once(api: HfApi, repo: str) -> None:
    """A second collection of one title is refused, or is the first with `exists_ok`."""
    made = api.create_collection(f"Once {repo}", namespace="lab")
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_collection(f"Once {repo}", namespace="lab")
    assert api.create_collection(f"Once {repo}", namespace="lab", exists_ok=True).slug == made.slug
    assert api.create_collection(f"Once {repo}").slug != made.slug


def test_collections_keep_what_is_private(api: HfApi, bob: HfApi, nobody: HfApi, repo: str) -> None:
    """A private collection is its owner's alone; a public one hides private repos and follows one to its new name."""
    made = api.create_collection(f"Shown {repo}", private=True)
    api.add_collection_item(made.slug, repo, "model")
    for other in (bob, nobody):
        with pytest.raises(HfHubHTTPError, match="404"):
            other.get_collection(made.slug)
        assert made.slug not in [item.slug for item in other.list_collections()]
    api.update_collection_metadata(made.slug, private=False)
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.add_collection_item(made.slug, repo, "model")
    api.move_repo(repo, f"{repo}-moved")
    assert [item.item_id for item in nobody.get_collection(made.slug).items] == [f"{repo}-moved"]
    api.update_repo_settings(f"{repo}-moved", visibility="private")
    assert nobody.get_collection(made.slug).items == []
    api.delete_repo(f"{repo}-moved")
    assert api.get_collection(made.slug).items == []


@pytest.mark.parametrize(
    ("card", "relation"),
    [
        ({"base_model": "ann/base"}, "finetune"),
        ({"base_model": ["ann/base", "ann/other"]}, "merge"),
        ({"base_model": "ann/base", "library_name": "peft"}, "adapter"),
        ({"base_model": "ann/base", "tags": ["merge"]}, "merge"),
        ({"base_model": "ann/base", "base_model_relation": "quantized"}, "quantized"),
    ],
    ids=str,
)
def test_models_by_their_base(api: HfApi, repo: str, card: dict[str, object], relation: str) -> None:
    """A card's base_model makes the Hub's two tags, by which lists of fine-tunes, adapters and merges are asked for."""
    data = ModelCardData(**card)  # type: ignore[arg-type]
    api.upload_file(
        path_or_fileobj=str(ModelCard(f"---\n{data}\n---\n")).encode(), path_in_repo="README.md", repo_id=repo
    )
    assert repo in [model.id for model in api.list_models(filter="base_model:ann/base")]
    for asked in ("finetune", "merge", "adapter", "quantized"):
        found = [model.id for model in api.list_models(filter=f"base_model:{asked}:ann/base")]
        assert (repo in found) == (asked == relation)


def test_an_unknown_sort_or_parameter_of_collections(web: httpx2.Client) -> None:
    """What the list does not know it refuses."""
    for query in ("sort=size", "colour=pink"):
        assert web.get(f"/api/collections?{query}").status_code == 400


def test_collections_outlive_the_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """They lie in the folder."""
    folder = tmp_path_factory.mktemp("hub")
    with LocalHub(folder) as hub:
        slug = HfApi(endpoint=hub.url, token=hub.token).create_collection("Kept").slug
    with LocalHub(folder) as hub:
        assert HfApi(endpoint=hub.url, token=hub.token).get_collection(slug).title == "Kept"
