"""The part of a workspace that knows feature tables, as databricks-feature-engineering asks it.

It reads requests by the client's own messages and refuses fields that they do not have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict, ParseError
from stub_workspace import Refused, Workspace, serve

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_STORE = "/api/2.0/feature-store/"


@dataclass(frozen=True)
class Known:
    """A table as Unity Catalog knows it: types by column, primary key, which of it is the time."""

    columns: Mapping[str, str]
    key: Sequence[str]
    time: str


@dataclass
class FeatureWorkspace(Workspace):
    """A workspace with feature tables, by their full names."""

    features: dict[str, Known] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer what concerns feature tables; the rest is the workspace's."""
        table = re.fullmatch(r"/api/2\.[01]/unity-catalog/tables/([^/]+)", path)
        if table and table[1] in self.features and method == "GET":
            self.calls.append((method, path, body))
            return self._described(table[1])
        if not path.startswith(_STORE):
            return super().answer(method, path, body)
        self.calls.append((method, path, body))
        self.fail_if_asked(method, path)
        asked = path.removeprefix(_STORE)
        if (method, asked) == ("GET", "features/get"):
            return {"features": self._features(body["feature_table"])}
        if (method, asked) == ("POST", "feature-tables/get-online-stores"):
            return {
                "feature_table_online_stores": [
                    {"feature_table": name} for name in body.get("feature_tables", [])
                ]
            }
        if (method, asked) == ("POST", "feature-spec/generate-yaml"):
            return {"feature_spec_yaml": self._spec(body)}
        if (method, asked) == ("POST", "features/add-consumer"):
            return {}
        raise Refused(404, "ENDPOINT_NOT_FOUND", f"no API {method} {path}")

    def _table(self, name: str) -> Known:
        if name not in self.features:
            raise Refused(404, "RESOURCE_DOES_NOT_EXIST", f"Table {name} does not exist.")
        return self.features[name]

    def _described(self, name: str) -> dict[str, Any]:
        known = self._table(name)
        key = {"child_columns": list(known.key), "timeseries_columns": [known.time]}
        return {
            "full_name": name,
            "table_id": f"id of {name}",
            "securable_kind": "TABLE_DELTA",
            "table_type": "MANAGED",
            "created_at": 0,
            "columns": [{"name": column} for column in known.columns],
            "table_constraints": [{"primary_key_constraint": key}],
        }

    def _features(self, name: str) -> list[dict[str, Any]]:
        known = self._table(name)
        kinds = {"bigint": "LONG", "int": "INTEGER"}
        return [
            {"table": name, "id": name, "name": name, "data_type": kinds.get(kind, kind.upper())}
            for name, kind in known.columns.items()
        ]

    def _spec(self, body: dict[str, Any]) -> str:
        """What is looked up where, as `feature_spec.yaml` says it."""
        from databricks.ml_features.api.proto.feature_catalog_pb2 import GenerateFeatureSpecYaml
        from databricks.ml_features_common.entities.column_info import ColumnInfo
        from databricks.ml_features_common.entities.feature_column_info import FeatureColumnInfo
        from databricks.ml_features_common.entities.feature_spec import FeatureSpec
        from databricks.ml_features_common.entities.feature_table_info import FeatureTableInfo
        from databricks.ml_features_common.entities.source_data_column_info import (
            SourceDataColumnInfo,
        )
        from databricks.ml_features_common.utils.feature_spec_utils import (
            assign_topological_ordering,
        )

        try:
            asked = ParseDict(body, GenerateFeatureSpecYaml())
        except ParseError as error:
            raise Refused(400, "INVALID_PARAMETER_VALUE", str(error)) from error
        lookups = [one.feature_lookup for one in asked.features]
        for one in lookups:
            known = self._table(one.table_name)
            if [*one.lookup_keys, known.time] != [*known.key[: len(one.lookup_keys)], known.time]:
                raise Refused(400, "INVALID_PARAMETER_VALUE", f"not the key of {one.table_name}")
            if unknown := set(one.feature_names) - known.columns.keys():
                raise Refused(400, "INVALID_PARAMETER_VALUE", f"no feature {unknown}")
        infos: list[Any] = [SourceDataColumnInfo(name) for name in asked.input_columns]
        tables = []
        for one in lookups:
            default = {value.feature_name: value.default_value for value in one.default_values}
            infos += [
                FeatureColumnInfo(
                    table_name=one.table_name,
                    feature_name=name,
                    lookup_key=list(one.lookup_keys),
                    output_name=name,
                    timestamp_lookup_key=list(one.timestamp_lookup_keys),
                    default_value_str=default.get(name),
                )
                for name in one.feature_names
            ]
            name, bounded = one.table_name, one.HasField("lookback_window_seconds")
            window = one.lookback_window_seconds if bounded else None
            tables.append(FeatureTableInfo(name, f"id of {name}", window))
        # An excluded column stays only where something is looked up by it.
        keys = {key for one in lookups for key in one.lookup_keys}
        columns = [
            ColumnInfo(info, info.output_name not in asked.exclude_columns)
            for info in infos
            if info.output_name not in asked.exclude_columns or info.output_name in keys
        ]
        spec = FeatureSpec(
            column_infos=assign_topological_ordering(columns),
            table_infos=sorted(tables, key=lambda table: table.table_name),
            function_infos=[],
            workspace_id=1,
            feature_store_client_version="0.18.2",
            serialization_version=FeatureSpec.SERIALIZATION_VERSION_NUMBER,
        )
        return yaml.safe_dump(spec._to_dict())


@contextmanager
def at_work(tables: Mapping[str, DataFrame], key: Sequence[str]) -> Iterator[FeatureWorkspace]:
    """A workspace that Databricks' own client talks to, with these tables, all of one key.

    Spark on this machine knows no catalogs of Unity Catalog, so the client is handed the tables.
    """
    from databricks.ml_features._spark_client._spark_client import SparkClient

    known = {
        name: Known(dict(rows.dtypes), (*key, "available_at"), "available_at")
        for name, rows in tables.items()
    }
    with serve(FeatureWorkspace(features=known)) as stub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABRICKS_HOST", stub.url)
        patch.setenv("DATABRICKS_TOKEN", "a-token")
        patch.setattr(SparkClient, "read_table", lambda self, name: tables[name])
        for asked in ("catalog_exists", "database_exists", "table_exists"):
            patch.setattr(SparkClient, asked, lambda self, *names: True)
        yield stub  # type: ignore[misc]
