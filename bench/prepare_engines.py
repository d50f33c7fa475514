"""The same preparation by three engines: `python -m bench.prepare_engines ENGINE RAW OUT CPUS`.

Each reads ratings.csv and movies.csv, splits every user's events by time (the last fifth is held
out), describes users (count, mean, deviation, range, velocity, recency, top three genres) and
items (count, mean, deviation, log popularity, trend) by what is before the split, and writes the
ordered events as Parquet partitioned by a hash of the user. Polars and PySpark are written as
their documentation would have it; neither validates, and neither can be appended to.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUCKETS = 25
MONTH_S = 30.4375 * 86_400


def with_ray(raw: Path, out: Path, cpus: int) -> dict[str, float]:
    """What `marquee prepare` does. Returns the seconds of each of its steps."""
    from training.data.movielens import detect
    from training.data.prepare import prepare

    began: dict[str, float] = {}

    def note(step: str) -> None:
        began.setdefault(step.split()[0].lower(), time.perf_counter())

    prepare(detect(str(raw)), out, cpus=cpus, report=note)
    ends = [*list(began.values())[1:], time.perf_counter()]
    return {
        step: round(end - begin, 2) for (step, begin), end in zip(began.items(), ends, strict=True)
    }


def with_polars(raw: Path, out: Path, cpus: int) -> None:
    """In memory; POLARS_MAX_THREADS, set by the caller, is the number of cores."""
    import polars as pl

    movies = pl.read_csv(raw / "movies.csv").with_columns(pl.col("genres").str.split("|"))
    events = pl.read_csv(raw / "ratings.csv").sort("userId", "timestamp", maintain_order=True)
    rank = pl.int_range(pl.len()).over("userId")
    size = pl.len().over("userId")
    events = events.with_columns(
        held_out=rank >= size - size // 5,
        bucket=pl.col("userId").hash() % BUCKETS,
    )
    before = events.filter(~pl.col("held_out"))
    rating, time = pl.col("rating"), pl.col("timestamp")
    now = before["timestamp"].max()
    months = (time.max() - time.min()) / MONTH_S
    users = before.group_by("userId").agg(
        n_events=pl.len(),
        rating_mean=rating.mean(),
        rating_std=rating.std(ddof=0),
        rating_min=rating.min(),
        rating_max=rating.max(),
        velocity_per_month=pl.len() / pl.max_horizontal(months, 1.0),
        recency_days=(now - time.max()) / 86_400,
    )
    genres = movies.select("movieId", "genres").explode("genres")
    counted = before.select("userId", "movieId").join(genres, on="movieId")
    counted = counted.group_by("userId", "genres").len()
    top = (
        counted.sort(["userId", "len", "genres"], descending=[False, True, False])
        .group_by("userId", maintain_order=True)
        .agg(pl.col("genres").head(3).alias("top_genres"))
    )
    items = before.group_by("movieId").agg(
        n_events=pl.len(),
        rating_mean=rating.mean(),
        rating_std=rating.std(ddof=0),
        rating_trend=2 * pl.cov(time, rating, ddof=0) / time.std(ddof=0),
    )
    items = items.with_columns(log_popularity=pl.col("n_events").log1p())
    out.mkdir(parents=True)
    for (bucket, held_out), part in events.partition_by(
        "bucket", "held_out", as_dict=True, include_key=False
    ).items():
        folder = out / "events" / f"bucket={bucket:04d}" / f"held_out={held_out}"
        folder.mkdir(parents=True)
        part.write_parquet(folder / "part-0.parquet", compression="snappy")
    users.join(top, on="userId", how="left").sort("userId").write_parquet(out / "users.parquet")
    movies.join(items, on="movieId", how="left").write_parquet(out / "items.parquet")


def with_pyspark(raw: Path, out: Path, cpus: int) -> None:
    """local[CPUS] with four gigabytes of heap."""
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as f

    spark = (
        SparkSession.builder.master(f"local[{cpus}]")
        .config("spark.driver.memory", "4g")
        .config("spark.sql.shuffle.partitions", str(BUCKETS))
        .config("spark.ui.enabled", "false")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    schema = "userId int, movieId int, rating double, timestamp long"
    events = spark.read.csv(str(raw / "ratings.csv"), header=True, schema=schema)
    movies = spark.read.csv(
        str(raw / "movies.csv"), header=True, schema="movieId int, title string, genres string"
    )
    by_time = Window.partitionBy("userId").orderBy("timestamp")
    size = f.count(f.lit(1)).over(Window.partitionBy("userId"))
    rank = f.row_number().over(by_time) - 1
    events = events.withColumn("held_out", rank >= size - f.floor(size / 5))
    events = events.withColumn("bucket", f.pmod(f.hash("userId"), f.lit(BUCKETS)))
    events.write.partitionBy("bucket", "held_out").parquet(str(out / "events"))
    before = spark.read.parquet(str(out / "events")).filter("NOT held_out")
    now = before.agg(f.max("timestamp")).first()[0]
    months = (f.max("timestamp") - f.min("timestamp")) / MONTH_S
    users = before.groupBy("userId").agg(
        f.count(f.lit(1)).alias("n_events"),
        f.mean("rating").alias("rating_mean"),
        f.stddev_pop("rating").alias("rating_std"),
        f.min("rating").alias("rating_min"),
        f.max("rating").alias("rating_max"),
        (f.count(f.lit(1)) / f.greatest(months, f.lit(1.0))).alias("velocity_per_month"),
        ((f.lit(now) - f.max("timestamp")) / 86_400).alias("recency_days"),
    )
    genres = movies.select("movieId", f.explode(f.split("genres", r"\|")).alias("genre"))
    counted = before.join(f.broadcast(genres), "movieId").groupBy("userId", "genre").count()
    order = Window.partitionBy("userId").orderBy(f.desc("count"), "genre")
    top = counted.withColumn("place", f.row_number().over(order)).filter("place <= 3")
    top = top.groupBy("userId").agg(
        f.transform(
            f.array_sort(f.collect_list(f.struct("place", "genre"))), lambda each: each["genre"]
        ).alias("top_genres")
    )
    users.join(top, "userId", "left").write.parquet(str(out / "users"))
    items = before.groupBy("movieId").agg(
        f.count(f.lit(1)).alias("n_events"),
        f.mean("rating").alias("rating_mean"),
        f.stddev_pop("rating").alias("rating_std"),
        f.try_divide(2 * f.covar_pop("timestamp", "rating"), f.stddev_pop("timestamp")).alias(
            "rating_trend"
        ),
        f.log1p(f.count(f.lit(1))).alias("log_popularity"),
    )
    movies.join(items, "movieId", "left").write.parquet(str(out / "items"))
    spark.stop()


ENGINES: dict[str, Callable[[Path, Path, int], Any]] = {
    "ray": with_ray,
    "polars": with_polars,
    "pyspark": with_pyspark,
}


def main(engine: str, raw: str, out: str, cpus: str) -> None:
    """Run one engine, on a directory that is not there yet; prints what it returns as JSON."""
    shutil.rmtree(out, ignore_errors=True)
    print(json.dumps(ENGINES[engine](Path(raw), Path(out), int(cpus))))


if __name__ == "__main__":
    main(*sys.argv[1:])
