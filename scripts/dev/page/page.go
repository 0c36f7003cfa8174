// Package page is the demo page: plain HTML, CSS and JavaScript, served as it is. Its
// wirepost.js is the JavaScript client of the protocol and knows nothing of the page.
//
// It loads nothing from anywhere else.
package page

import "embed"

// FS holds the files of the page, index.html among them. The client's own tests, in the
// folder test, are not part of it.
//
//go:embed index.html style.css icon.svg *.js
var FS embed.FS
