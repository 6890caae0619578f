"""Every check of an environment: this machine, the storage, MLflow, the cluster's nodes."""
