"""A worker: it says once a minute that it is there."""
import os
import time

while True:
    print(f"{os.environ.get('DYNO', '?')} is at work", flush=True)
    time.sleep(60)
