"""A run that hangs while it shuts down, and is sent SIGTERM twice."""

import signal
import time

from trainer.process import stop_request
from trainer.process.stop_request import StopRequest, listen

stop_request.SAME_SECONDS = 0.1
stop = StopRequest()
with listen(stop, lambda: None):
    stop.begin_shutdown()
    for _ in range(2):
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.5)
    time.sleep(60)
