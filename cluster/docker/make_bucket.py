"""Makes the bucket of MLflow's artifacts where it is missing; address and keys come from the environment."""

import sys

import boto3
from botocore.exceptions import ClientError

store, bucket = boto3.client("s3"), sys.argv[1]
try:
    store.head_bucket(Bucket=bucket)
except ClientError:
    store.create_bucket(Bucket=bucket)
print(f"bucket {bucket} is there")
