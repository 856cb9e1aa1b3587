"""The commands of the workflows: run here and now; submit, status, logs and reprocess on the local engine or on Argo."""
