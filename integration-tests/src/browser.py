"""A browser that obeys: each line of standard input is a command, as a JSON object, and is answered with a line.

The first line is `{"ready": VERSION}`, or `{"absent": WHY}` where there is no browser."""

import importlib.util
import json
import pathlib
import shutil
import sys

from playwright.sync_api import Error, sync_playwright

# Debian's packages; the first is the smallest.
PROGRAMS = ["chromium-headless-shell", "chromium"]
# Root runs the tests in containers, where a browser cannot shut itself in any further.
ARGUMENTS = ["--no-sandbox", "--force-color-profile=srgb"]
IN_FULL = {"serious", "critical"}

# Violations of the policy of the page, and whatever its scripts did not catch.
WATCH = """
window.seenFaults = [];
addEventListener('securitypolicyviolation', (event) => seenFaults.push(`policy: ${event.violatedDirective} ${event.blockedURI}`));
addEventListener('error', (event) => seenFaults.push(`error: ${event.message}`));
addEventListener('unhandledrejection', (event) => seenFaults.push(`rejection: ${event.reason?.stack ?? event.reason}`));
"""


class Browser:
    def __init__(self, program):
        self.program = program
        self.requests = []
        self.streams = set()
        self.faults = []
        self.page = None

    def open(self, url, width=1280, height=800, scheme="light"):
        """Opens a page in a profile of its own."""
        if self.page:
            self.page.context.close()
        context = self.program.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce", locale="en-US"
        )
        context.add_init_script(WATCH)
        self.streams.clear()
        self.show(context, url)

    def show(self, context, url):
        self.page = context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", self.began)
        self.page.on("requestfinished", self.ended)
        self.page.on("requestfailed", self.ended)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.goto(url)

    def began(self, request):
        self.requests.append(request.url)
        if request.url.endswith("/stream"):
            self.streams.add(request)

    def ended(self, request):
        self.streams.discard(request)

    def tab(self, url):
        """Opens another tab of the same profile, which is that of the next commands."""
        self.show(self.page.context, url)

    def leave(self):
        """Closes this tab; the next commands are for the first one."""
        context, closed = self.page.context, self.page
        # Nothing says of a closed tab's requests that they have ended.
        self.streams = {request for request in self.streams if request.frame.page != closed}
        closed.close()
        self.page = context.pages[0]

    def everywhere(self, js):
        """The values of an expression in all tabs, and how many streams they have together."""
        values = [page.evaluate(js) for page in self.page.context.pages]
        return {"values": values, "streams": len(self.streams)}

    def js(self, js):
        """The value of an expression. What is not there yet is nothing."""
        return self.page.evaluate(js)

    def press(self, keys):
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, text):
        self.page.keyboard.type(text)

    def click(self, at):
        self.page.click(at)

    def fake(self, path, body):
        """Answers requests for the path with this body, from the next one on."""
        self.page.route(path, lambda route: route.fulfill(status=200, content_type="application/json", body=json.dumps(body)))

    def axe(self):
        """What axe-core finds that is serious or worse: rule, and where."""
        found = importlib.util.find_spec("axe_playwright_python").submodule_search_locations[0]
        self.page.evaluate((pathlib.Path(found) / "axe.min.js").read_text())
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{rule['id']}: {node['html'][:200]}"
            for rule in result["violations"]
            if rule["impact"] in IN_FULL
            for node in rule["nodes"]
        ]

    def seen(self):
        """Every request so far, and whatever went wrong."""
        return {"requests": self.requests, "faults": self.faults + self.page.evaluate("window.seenFaults ?? []")}

    def picture(self, file):
        self.page.screenshot(path=file)


def answer(value):
    print(json.dumps(value), flush=True)


program = next(filter(None, map(shutil.which, PROGRAMS)), None)
if program is None:
    answer({"absent": f"none of {', '.join(PROGRAMS)} is installed"})
    sys.exit()
with sync_playwright() as playwright:
    launched = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
    browser = Browser(launched)
    answer({"ready": launched.version})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer({"ok": getattr(browser, command.pop("do"))(**command)})
        except Error as error:
            answer({"error": str(error)})
    launched.close()
