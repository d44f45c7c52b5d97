"""For test_python_options.py: needs nothing."""

import json


class Reversed:
    @staticmethod
    def dumps(value):
        return json.dumps(value).encode()[::-1]

    @staticmethod
    def loads(data):
        return json.loads(data[::-1])
