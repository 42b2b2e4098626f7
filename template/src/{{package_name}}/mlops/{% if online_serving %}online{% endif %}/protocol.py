"""What a request may say: MLflow's scoring protocol, with the keys and request features as columns.

Everything that a later step could stumble over is refused here, with the name of the field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ..declarations import Problem

MOST_ROWS = 10_000


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise PydanticCustomError("text", "must be text without NUL and lone surrogates")
    return text


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise PydanticCustomError("finite_number", "must be a finite number") from None


_Whole = Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)]
_Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
_KINDS: dict[str, Any] = {
    "string": Annotated[StrictStr, Field(max_length=10_000), AfterValidator(_storable)],
    **dict.fromkeys(("bigint", "int", "smallint", "tinyint"), _Whole),
    **dict.fromkeys(("double", "float"), Annotated[_Number | StrictInt, AfterValidator(_as_float)]),
    "boolean": StrictBool,
}


class RequestError(ValueError):
    """A request that cannot be answered; the message names the field and the fix.

    `version` is the version that could not, when the request itself is as it should be.
    """

    def __init__(self, message: str, version: str | None = None) -> None:
        super().__init__(message)
        self.version = version


class Split(BaseModel):
    """Rows as lists, in the order of `columns`."""

    model_config = ConfigDict(extra="forbid")
    columns: list[str] = Field(min_length=1)
    data: list[list[Any]] = Field(min_length=1, max_length=MOST_ROWS)
    index: list[Any] | None = None


def row_model(problem: Problem, keys: Mapping[str, str]) -> type[BaseModel]:
    """The schema of a row: the keys to look features up by, and the request's own features.

    `keys` gives the type of each key of the feature tables. A value may be null, and is then
    unknown, as in training; it may not be left out.
    """
    fields: dict[str, Any] = {}
    described = {column.name: column for column in problem.request_features}
    owners = {key: table.name for table in problem.feature_tables for key in table.keys}
    for name in (*described, *(key for key in keys if key not in described)):
        column = described.get(name)
        kind = column.type if column else keys[name]
        if kind not in _KINDS:
            raise ValueError(
                f"{name} is {kind}, which a request cannot bring. Fix: cast it in problem.py."
            )
        wanted = _KINDS[kind]
        if column is None or column.nullable:
            wanted = wanted | None
        text = column.description if column else f"Key of {owners[name]}"
        fields[name] = (wanted, Field(description=text))
    if problem.entity_key not in fields:
        entity = (_KINDS["string"] | None, Field(None, description="Id of what is predicted"))
        fields[problem.entity_key] = entity
    return create_model("Row", __config__=ConfigDict(extra="forbid"), **fields)


def invocation_model(row: type[BaseModel], example: Mapping[str, Any]) -> type[BaseModel]:
    """The schema of a request: rows, in exactly one of the forms that MLflow takes."""
    many: Any = Annotated[list[row], Field(min_length=1, max_length=MOST_ROWS)]  # type: ignore[valid-type]
    dict[str, list[Any]]
    forms: dict[str, Any] = {
        "dataframe_records": (many, Field(None, description="A list of rows")),
        "dataframe_split": (Split, Field(None, description="Columns, and rows as lists")),
        "inputs": (
            dict[str, list[Any]] | many,
            Field(None, description="Lists by column, or rows"),
        ),
        "instances": (many, Field(None, description="A list of rows")),
    }

    def one_form(invocation: BaseModel) -> BaseModel:
        if len(invocation.model_fields_set) != 1:
            raise PydanticCustomError(
                "form", "must have exactly one of {names}", {"names": ", ".join(forms)}
            )
        return invocation

    described: Any = {
        "minProperties": 1,
        "maxProperties": 1,
        "example": {"dataframe_records": [dict(example)]},
    }
    validators: Any = {"one_form": model_validator(mode="after")(one_form)}
    return create_model(
        "Invocation",
        __config__=ConfigDict(extra="forbid", json_schema_extra=described),
        __validators__=validators,
        **forms,
    )


def rows_of(invocation: BaseModel, row: type[BaseModel]) -> list[dict[str, Any]]:
    """The rows of a request, each with every column of the schema.

    Raises:
        RequestError: a row is not as the schema says.
    """
    (form,) = invocation.model_fields_set
    given = getattr(invocation, form)
    if form == "dataframe_split":
        return _checked(row, form, _by_row(given.columns, given.data))
    if isinstance(given, dict):
        lengths = {len(values) for values in given.values()}
        if len(lengths) != 1 or not 0 < max(lengths) <= MOST_ROWS:
            raise RequestError(f"{form}: its columns must be of one length, from 1 to {MOST_ROWS}")
        rows = zip(*given.values(), strict=True)
        return _checked(row, form, _by_row(list(given), [list(values) for values in rows]))
    return [dict(item) for item in given]


def _by_row(columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:
    if len(set(columns)) != len(columns):
        raise RequestError("dataframe_split.columns: names a column twice")
    for number, values in enumerate(data):
        if len(values) != len(columns):
            counts = f"{len(values)} values for {len(columns)} columns"
            raise RequestError(f"dataframe_split.data.{number}: has {counts}")
    return [dict(zip(columns, values, strict=True)) for values in data]


def _checked(row: type[BaseModel], form: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for number, values in enumerate(rows):
        try:
            found.append(dict(row.model_validate(values)))
        except ValidationError as error:
            raise RequestError(explain(error.errors(), (form, number))) from None
    return found


def explain(errors: Any, prefix: tuple[Any, ...] = ()) -> str:
    """What is wrong with a request, a field each, the first ten."""
    lines = []
    for error in list(errors)[:10]:
        if error["type"] == "json_invalid":
            lines.append(f"body: it is no JSON: {error['ctx']['error']}")
            continue
        where = ".".join(str(part) for part in (*prefix, *error["loc"]) if part != "body")
        lines.append(f"{where or 'body'}: {error['msg']}")
    return "; ".join(dict.fromkeys(lines))
