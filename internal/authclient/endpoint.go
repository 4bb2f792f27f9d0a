package authclient

import (
	"errors"
	"net"
	"net/url"
	"strconv"
)

// Endpoint is what a valid AUTH_SERVICE_URL says.
type Endpoint struct {
	// Address is host:port, an IPv6 host in brackets. It holds no secret.
	Address string
	TLS     bool
}

const urlExample = "; write it as http://auth-service:9080 (plaintext) or https://auth-service:443 (TLS)"

// ParseURL reads AUTH_SERVICE_URL. A port left out is 9080 for http and 443
// for https. Its errors never repeat the value: whoever mistypes a URL may
// have typed a password into it, and where it ends is then anybody's guess.
func ParseURL(raw string) (Endpoint, error) {
	if raw == "" {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL is not set" + urlExample)
	}
	u, err := url.Parse(raw)
	problem := ""
	switch {
	case err != nil:
		problem = "is not a URL"
	case u.Scheme == "" || (u.Opaque != "" && u.Host == ""):
		problem = "has no scheme"
	case u.Scheme != "http" && u.Scheme != "https":
		problem = "has a scheme other than http and https"
	case u.User != nil:
		problem = "holds a user name or password, which auth-service does not take"
	case u.Hostname() == "":
		problem = "has no host"
	case u.Path != "" && u.Path != "/":
		problem = "has a path, which gRPC does not take"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		problem = "has a query or fragment, which gRPC does not take"
	}
	if problem != "" {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL " + problem + urlExample)
	}
	end := Endpoint{TLS: u.Scheme == "https"}
	port := u.Port()
	switch {
	case port == "" && end.TLS:
		port = "443"
	case port == "":
		port = "9080"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return Endpoint{}, errors.New("AUTH_SERVICE_URL has a port outside 1 to 65535" + urlExample)
	}
	end.Address = net.JoinHostPort(u.Hostname(), port)
	return end, nil
}
