"""Takes what `highwater-consumer` prints, and the tables themselves, into data frames with pandas and SQLAlchemy alone, and prints
what it found as JSON.

  frames.py csv FILE...           reads CSV files with no options
  frames.py sql URL TABLE...      reads tables and views by SQLAlchemy"""

import json
import pathlib
import sys

import pandas
import sqlalchemy


def described(frame):
    """The columns by what they are to pandas, and the sums of numbers."""
    types, sums, missing = {}, {}, {}
    for name, column in frame.items():
        is_time = name.endswith("_at")
        values = pandas.to_datetime(column) if is_time else column
        if pandas.api.types.is_datetime64_any_dtype(values):
            types[name] = "time"
        elif pandas.api.types.is_timedelta64_dtype(values):
            types[name] = "duration"
        elif pandas.api.types.is_bool_dtype(values):
            types[name] = "bool"
        elif pandas.api.types.is_numeric_dtype(values):
            types[name] = "number"
            sums[name] = float(values.sum())
        else:
            types[name] = "text"
        missing[name] = int(values.isna().sum())
    return {"rows": len(frame), "types": types, "sums": sums, "missing": missing}


def main():
    form, *arguments = sys.argv[1:]
    if form == "csv":
        frames = {pathlib.Path(file).stem: pandas.read_csv(file) for file in arguments}
    else:
        url, *tables = arguments
        with sqlalchemy.create_engine(url).connect() as connection:
            frames = {table: pandas.read_sql(sqlalchemy.text(f"SELECT * FROM {table}"), connection) for table in tables}
    json.dump({name: described(frame) for name, frame in frames.items()}, sys.stdout)


main()
