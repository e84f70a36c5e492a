-- Prefect's database is the image's POSTGRES_DB; MLflow has one of its own.
CREATE DATABASE mlflow;
