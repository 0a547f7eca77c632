"""Clusters: what plays a run's episodes in other processes, or on other machines."""
