import { render } from "preact";
import { learnSession } from "./api";
import { App } from "./app";

const root = document.getElementById("app");
void learnSession();
if (root) render(<App />, root);
