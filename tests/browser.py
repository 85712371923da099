"""Opens a page in Chromium (Qt WebEngine, without a display), runs a script in it, and prints its value as JSON.

Used as ``python browser.py PAGE WIDTH SCRIPT [PICTURE]``, with PyQt6-WebEngine, in a process of its own.
"""

import json
import os
import sys

os.environ |= {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",
}  # as root, Chromium refuses its sandbox

from PyQt6.QtCore import QTimer, QUrl
from PyQt6.QtWebEngineWidgets import QWebEngineView
from PyQt6.QtWidgets import QApplication

page, width, script = sys.argv[1:4]
application = QApplication(sys.argv[:1])
view = QWebEngineView()
view.resize(int(width), 900)


def loaded(_: bool) -> None:
    QTimer.singleShot(500, lambda: view.page().runJavaScript(script, done))


def done(value: object) -> None:
    if len(sys.argv) > 4:
        view.grab().save(sys.argv[4])
    print(json.dumps(value))
    application.quit()


view.loadFinished.connect(loaded)
view.show()
view.load(QUrl.fromLocalFile(os.path.abspath(page)))
application.exec()
