"""What runs in processes of its own is not collected."""

collect_ignore = ["mutate.py", "run.py", "seeds.py"]
