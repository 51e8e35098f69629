package router

import (
	"fmt"
	"html"
	"net/http"
)

// failure is one way a request can end without the app's own answer: a row of
// Heroku's error table.
type failure struct {
	level  string // at=
	code   string
	desc   string
	status int    // sent to the client, and logged
	sock   string // the side that broke, where that is logged
	cause  string // of H26
	page   *page  // nil: there is nobody to read one
}

type page struct{ title, text string }

var (
	pageApp = &page{"Application error", "An error occurred in the application and your page could not be served. " +
		"If you are the application owner, check your logs for details: heroku logs --tail"}
	pageNoApp   = &page{"No such app", "There is no app on this address. If you are the application owner, check its name and its domains: heroku domains"}
	pageBlank   = &page{"There is nothing here yet", "This app has no code so far. If you are the application owner, deploy it: git push heroku main"}
	pageOffline = &page{"Offline for maintenance", "This application is undergoing maintenance right now. Please check back later."}
	pageFault   = &page{"Service unavailable", "The platform could not pass the request on. Please try again in a moment."}
	pageRouter  = &page{"Service unavailable", "The router does not know its apps yet. Please try again in a moment."}
)

// The failures, by Heroku's codes. The texts of desc are Heroku's, since
// people search their logs for them.
var (
	h10 = &failure{"error", "H10", "App crashed", 503, "", "", pageApp}
	h11 = &failure{"error", "H11", "Backlog too deep", 503, "", "", pageApp}
	h12 = &failure{"error", "H12", "Request timeout", 503, "", "", pageApp}
	h13 = &failure{"error", "H13", "Connection closed without response", 503, "", "", pageApp}
	h14 = &failure{"error", "H14", "No web processes running", 503, "", "", pageApp}
	h15 = &failure{"error", "H15", "Idle connection", 503, "", "", nil}
	h17 = &failure{"error", "H17", "Poorly formatted HTTP response", 503, "", "", pageApp}
	h18 = &failure{"error", "H18", "Server Request Interrupted", 503, "backend", "", nil}
	h19 = &failure{"error", "H19", "Backend connection timeout", 503, "", "", pageApp}
	h20 = &failure{"error", "H20", "App boot timeout", 503, "", "", pageApp}
	h21 = &failure{"error", "H21", "Backend connection refused", 503, "", "", pageApp}
	h24 = &failure{"error", "H24", "Forced close", 503, "", "", nil}
	h27 = &failure{"warning", "H27", "Client Request Interrupted", 499, "client", "", nil}
	h28 = &failure{"warning", "H28", "Client Connection Idle", 499, "client", "", nil}
	h34 = &failure{"error", "H34", "All up dynos are quarantined", 503, "", "", pageApp}
	h80 = &failure{"info", "H80", "Maintenance mode", 503, "", "", pageOffline}
	h99 = &failure{"error", "H99", "Platform error", 503, "", "", pageFault}
	h81 = &failure{"info", "H81", "Blank app", 502, "", "", pageBlank}

	h26expect = &failure{"error", "H26", "Request Error", 417, "", "unsupported expect header value",
		&page{"Expectation failed", "This Expect header is not supported."}}
	h26chunk = &failure{"error", "H26", "Request Error", 400, "", "bad chunk",
		&page{"Bad request", "The request's body is malformed."}}

	// These two are of no app, so there is no log they could go to.
	noApp   = &failure{status: 404, page: pageNoApp}
	noTable = &failure{status: 503, page: pageRouter}
)

// h25 is a response that breaks a bound; which says what in Heroku's words.
func h25(which string) *failure {
	return &failure{"error", "H25", "HTTP restriction: " + which, 502, "", "", pageApp}
}

// refused is a request that breaks the rules so that it cannot be routed.
func refused(status int, why string) *failure {
	return &failure{status: status, page: &page{http.StatusText(status), why}}
}

// render makes the whole answer: unstyled, and safe to show whatever the
// request was.
func (f *failure) render(method, requestID string, last bool) []byte {
	if f.page == nil {
		return nil
	}
	title, text := html.EscapeString(f.page.title), html.EscapeString(f.page.text)
	body := fmt.Sprintf("<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" "+
		"content=\"width=device-width, initial-scale=1\"><title>%s</title></head>\n<body>\n<h1>%s</h1>\n<p>%s</p>\n", title, title, text)
	if requestID != "" {
		body += "<p><small>Request " + html.EscapeString(requestID) + "</small></p>\n"
	}
	body += "</body>\n</html>\n"
	connection := ""
	if last {
		connection = "Connection: close\r\n"
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: %d\r\n"+
		"Cache-Control: no-cache, no-store\r\nServer: %s\r\nDate: %s\r\n%s\r\n",
		f.status, http.StatusText(f.status), len(body), serverName, httpDate(), connection)
	if method == http.MethodHead {
		body = ""
	}
	return []byte(head + body)
}
