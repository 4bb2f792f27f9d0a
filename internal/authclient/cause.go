package authclient

import (
	"cmp"
	"regexp"
	"strings"

	"github.com/nova-social/orphan-cleaner/internal/source"
)

// pageStatus is how gRPC begins its message about a response that is not gRPC's.
const pageStatus = "unexpected HTTP status code received from server"

// noise is what gRPC puts around the cause of a failure to connect.
var noise = regexp.MustCompile(`connection error: desc = "|transport: (authentication handshake failed: |Error while dialing: )?|error reading server preface: | \(possibly because of .*| \(Client\.Timeout.*|"$`)

// connectHint says what to do about a failure to connect, or nothing.
func connectHint(text string, inTLS bool) string {
	const port = "; is the port right?"
	for _, known := range []struct{ words, says string }{
		{"connection refused", "nobody listens there: is auth-service up, and the port right?"},
		{"no route to host", "is the address right, and reachable from this machine?"},
		{"first record does not look like a TLS handshake", "the server speaks no TLS; if it is auth-service, write http:// in AUTH_SERVICE_URL" + port},
		{"certificate has expired", "renew the server's certificate, or set the clock of this machine"},
		{"doesn't contain any IP SANs", "the certificate is of another name; AUTH_SERVICE_SERVER_NAME says which one it must carry"},
		{"certificate is valid for", "the certificate is of another name; AUTH_SERVICE_SERVER_NAME says which one it must carry"},
		{"certificate is not valid for any names", "the certificate is of another name; AUTH_SERVICE_SERVER_NAME says which one it must carry"},
		{"unknown authority", "AUTH_SERVICE_CA_FILE names the CA that signed the server's certificate"},
		{"certificate required", "the server wants a client certificate: AUTH_SERVICE_CERT_FILE and AUTH_SERVICE_KEY_FILE"},
		{"bad certificate", "the server does not take the client certificate: AUTH_SERVICE_CERT_FILE and AUTH_SERVICE_KEY_FILE"},
		{"no application protocol", "the server speaks no HTTP/2, so it is not auth-service" + port},
		{"HTTP/1.1 header", "the server speaks no plaintext HTTP/2, so it is not auth-service" + port},
	} {
		if strings.Contains(text, known.words) {
			return known.says
		}
	}
	switch {
	case inTLS && (strings.HasPrefix(text, "connection error") || strings.Contains(text, "broken pipe")):
		return "the server ended the connection after the handshake; if it wants a client certificate: AUTH_SERVICE_CERT_FILE and AUTH_SERVICE_KEY_FILE"
	case inTLS, !strings.HasPrefix(text, "connection error"): // it broke later
		return ""
	default:
		return "the server speaks no plaintext HTTP/2; if it speaks TLS, write https:// in AUTH_SERVICE_URL" + port
	}
}

// causeOf makes of gRPC's message what happened and what to do about it. answered says
// whether the server sent gRPC back; isPage, that it sent something else.
func causeOf(text string, answered, inTLS bool, token source.Token) (cause string, isPage bool) {
	if head, _, _ := strings.Cut(text, "\ndata: "); strings.HasPrefix(text, pageStatus) {
		return token.Clean(head) + ": that is no gRPC: a web server, or a proxy that does not reach auth-service; is the port right?", true
	}
	if answered {
		return cmp.Or(token.Clean(text), "the server gives no reason: look in the log of auth-service"), false
	}
	cause = token.Clean(noise.ReplaceAllString(text, ""))
	if hint := connectHint(text, inTLS); hint != "" {
		cause += ": " + hint
	}
	return cause, false
}
