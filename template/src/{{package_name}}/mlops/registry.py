"""Versions of the registered model, their aliases and tags.

The champion is the version that serves, the challenger the newest one that awaits a decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .platform import Platform
from .platform.feature_engineering import LOADER, PLAIN
from .team import PROBLEM

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous_champion"
SHADOW = "shadow"  # scored beside the champion and only recorded


def _is_absent(error: MlflowException) -> bool:
    # Unity Catalog has codes of its own for it, SQLite says so in the text.
    if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
        return True
    return error.error_code == "INVALID_PARAMETER_VALUE" and "not found" in str(error).lower()


class Registry:
    """The model of this project in the platform's registry."""

    def __init__(self, platform: Platform, model: str | None = None) -> None:
        from mlflow import MlflowClient

        self.client: MlflowClient = MlflowClient()
        self.model = model or platform.full_name(PROBLEM.name)
        self._platform = platform
        self._read: dict[str, Model] = {}

    def at(self, alias: str) -> str | None:
        """Version that the alias points at, or None. Any other failure is raised."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version_by_alias(self.model, alias).version)
        except MlflowException as error:
            if _is_absent(error):
                return None
            raise

    def point(self, alias: str, version: str) -> None:
        """Move the alias to the version."""
        self.client.set_registered_model_alias(self.model, alias, version)

    def drop(self, alias: str) -> None:
        """Remove the alias, if it is there."""
        if self.at(alias) is not None:
            self.client.delete_registered_model_alias(self.model, alias)

    def trained_with(self, version: str) -> list[str]:
        """Names of the features that the version was trained with, in order."""
        signature = self._metadata(self.uri(version)).signature
        inputs = signature.inputs.input_names() if signature and signature.inputs else []
        return [str(name) for name in inputs]

    def inputs(self, version: str) -> list[str]:
        """The same, of a version that is to be used.

        Raises:
            LookupError: the problem no longer has one of them.
        """
        inputs = self.trained_with(version)
        known = {column.name for column in PROBLEM.known_features}
        gone = [name for name in inputs if name not in known]
        if gone:
            raise LookupError(
                f"Version {version} of {self.model} needs {', '.join(gone)}, which problem.py and "
                "features/ no longer have. Fix: bring it back with retired=True until a version "
                "that does without is champion; docs/add-a-feature.md tells how."
            )
        return inputs

    def get(self, version: str) -> ModelVersion:
        """The version with its tags."""
        return self.client.get_model_version(self.model, version)

    def tag(self, version: str, key: str) -> str:
        """A tag of the version.

        Raises:
            LookupError: the version lacks it.
        """
        tags = self.get(version).tags
        if key not in tags:
            raise LookupError(f"Version {version} of {self.model} has no tag {key!r}.")
        return str(tags[key])

    def packed(self, version: str) -> bool:
        """Whether the version carries its look-ups, as a workspace's do."""
        flavors = self._metadata(f"models:/{self.model}/{version}").flavors
        return bool(flavors.get("python_function", {}).get("loader_module") == LOADER)

    def _metadata(self, uri: str) -> Model:
        """What MLflow wrote down beside a model, which does not change."""
        import mlflow

        if uri not in self._read:
            file = mlflow.artifacts.download_artifacts(f"{uri}/MLmodel")
            self._read[uri] = mlflow.models.Model.load(file)
        return self._read[uri]

    def uri(self, version: str) -> str:
        """URI that MLflow loads what predicts from features from."""
        whole = f"models:/{self.model}/{version}"
        return f"{whole}/{PLAIN}" if self.packed(version) else whole

    def load(self, version: str) -> Any:
        """Load the version as it will be served."""
        import mlflow

        return mlflow.pyfunc.load_model(self.uri(version))

    def versions(self) -> list[str]:
        """All versions, the newest first."""
        found = self.client.search_model_versions(f"name = '{self.model}'")
        return [str(number) for number in sorted((int(v.version) for v in found), reverse=True)]

    def require(self, version: str) -> None:
        """Raise LookupError when there is no such version."""
        known = self.versions()
        if version not in known:
            fix = f"name one of {', '.join(known)}" if known else "run the training job"
            raise LookupError(f"{self.model} has no version {version}. Fix: {fix}.")

    def aliases(self) -> dict[str, str]:
        """Each alias with its version."""
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_registered_model(self.model).aliases
        except MlflowException as error:
            if _is_absent(error):
                return {}
            raise
        return {alias: str(version) for alias, version in found.items()}

    def find(self, tags: Mapping[str, str]) -> str | None:
        """The newest version that has all these tags."""
        wanted = tags.items()
        return next((v for v in self.versions() if wanted <= self.get(v).tags.items()), None)

    def register(
        self, source: str, run_id: str, tags: Mapping[str, str], description: str = ""
    ) -> str:
        """Register a logged model, with all its tags, in one step; return the version."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.model, description=PROBLEM.description)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        created = self.client.create_model_version(
            self.model, source, run_id, tags=dict(tags), description=description or None
        )
        return str(created.version)

    def announce(self, version: str) -> None:
        """Have the deployment job decide on the version."""
        self._platform.announce(self.model, version)
