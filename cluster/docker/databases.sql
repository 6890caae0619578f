-- Run once by the PostgreSQL image on an empty volume; the role mlflow and its database come from the image.
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE optuna OWNER mlflow;
