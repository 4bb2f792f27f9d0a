package source

import (
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// The kinds of sources, as metrics name them.
const (
	GRPC = "grpc"
	SQL  = "sql"
	HTTP = "http"
)

// Endpoint is what a valid AUTH_SERVICE_URL says.
type Endpoint struct {
	// Kind is GRPC, SQL or HTTP, Scheme as it was written.
	Kind, Scheme string
	// Address is host:port, an IPv6 host in brackets. It holds no secret. Empty for
	// SQL, whose URL may name several.
	Address string
	Path    string // HTTP only
	TLS     bool   // not for SQL, whose URL has sslmode
}

const urlExample = "; write it as http://auth-service:9080 (gRPC, plaintext), https://auth-service:443 (gRPC, TLS), " +
	"postgresql://user@host:5432/auth (SQL), or rest+https://host/path (HTTP)"

// ParseURL reads AUTH_SERVICE_URL: http and https are gRPC, postgresql is SQL, and
// rest+http and rest+https are HTTP. A port left out is 9080 for http, 80 for rest+http
// and 443 with TLS. Its errors never repeat the value: whoever mistypes a URL may
// have typed a password into it, and where it ends is then anybody's guess. The rest of
// a URL for SQL is left to whoever connects.
func ParseURL(raw string) (Endpoint, error) {
	if raw == "" {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL is not set" + urlExample)
	}
	if strings.HasPrefix(raw, "postgres://") || strings.HasPrefix(raw, "postgresql://") {
		return Endpoint{Kind: SQL, Scheme: "postgresql"}, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL is not a URL" + urlExample)
	}
	end := Endpoint{Scheme: u.Scheme}
	port := ""
	switch u.Scheme {
	case "http":
		end.Kind, port = GRPC, "9080"
	case "https":
		end.Kind, port, end.TLS = GRPC, "443", true
	case "rest+http":
		end.Kind, port = HTTP, "80"
	case "rest+https":
		end.Kind, port, end.TLS = HTTP, "443", true
	}
	problem := ""
	switch {
	case u.Scheme == "" || (u.Opaque != "" && u.Host == ""):
		problem = "has no scheme"
	case end.Kind == "":
		problem = "has a scheme other than http, https, postgresql, rest+http and rest+https"
	case u.User != nil:
		problem = "holds a user name or password, which auth-service does not take"
	case u.Hostname() == "":
		problem = "has no host"
	case strings.HasSuffix(u.Host, ":"): // a variable in it was empty
		problem = "ends with a colon and no port"
	case end.Kind == GRPC && u.Path != "" && u.Path != "/":
		problem = "has a path, which gRPC does not take"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		problem = "has a query or fragment, which auth-service does not take"
	}
	if problem != "" {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL " + problem + urlExample)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL has a port outside 1 to 65535" + urlExample)
	}
	end.Address = net.JoinHostPort(u.Hostname(), port)
	if end.Kind == HTTP {
		end.Path = u.EscapedPath()
	}
	return end, nil
}
