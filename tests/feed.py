"""Reads a calendar with a parser that knows nothing of Fracas, and prints its events as one JSON object for the test.

Argument: the file.
"""

import json
import sys

import icalendar


def main():
    with open(sys.argv[1], "rb") as file:
        calendar = icalendar.Calendar.from_ical(file.read())
    events = [
        {
            "uid": str(event["UID"]),
            "summary": str(event["SUMMARY"]),
            "description": str(event["DESCRIPTION"]),
            "status": str(event["STATUS"]),
            "start": int(event["DTSTART"].dt.timestamp()),
            "end": int(event["DTEND"].dt.timestamp()),
            "stamped": int(event["DTSTAMP"].dt.timestamp()),
            "errors": [str(error) for error in event.errors],
        }
        for event in calendar.walk("VEVENT")
    ]
    print(json.dumps({"name": str(calendar["X-WR-CALNAME"]), "errors": [str(e) for e in calendar.errors], "events": events}))


main()
