package source

import (
	"strings"
	"testing"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]Endpoint{
		"http://auth-service:9080":            {Kind: GRPC, Scheme: "http", Address: "auth-service:9080"},
		"http://auth-service":                 {Kind: GRPC, Scheme: "http", Address: "auth-service:9080"},
		"http://auth-service:9080/":           {Kind: GRPC, Scheme: "http", Address: "auth-service:9080"},
		"https://auth.nova":                   {Kind: GRPC, Scheme: "https", Address: "auth.nova:443", TLS: true},
		"https://auth.nova:9443":              {Kind: GRPC, Scheme: "https", Address: "auth.nova:9443", TLS: true},
		"HTTPS://[::1]:9080":                  {Kind: GRPC, Scheme: "https", Address: "[::1]:9080", TLS: true},
		"rest+http://api":                     {Kind: HTTP, Scheme: "rest+http", Address: "api:80"},
		"rest+https://api/v1/users/check":     {Kind: HTTP, Scheme: "rest+https", Address: "api:443", Path: "/v1/users/check", TLS: true},
		"postgres://u:p%zz/@h1,h2:1/db":       {Kind: SQL, Scheme: "postgresql"},
		"postgresql://auth@db/auth?sslmode=x": {Kind: SQL, Scheme: "postgresql"},
		"http://127.0.0.1:1":                  {Kind: GRPC, Scheme: "http", Address: "127.0.0.1:1"},
	} {
		if got, err := ParseURL(raw); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", raw, got, err, want)
		}
	}
}

func TestParseURLRefuses(t *testing.T) {
	for raw, says := range map[string]string{
		"":                                 "not set",
		"auth-service:9080":                "no scheme",
		"auth-service":                     "no scheme",
		"//auth-service:9080":              "no scheme",
		"127.0.0.1:9080":                   "not a URL",
		"grpc://auth-service:9080":         "scheme other",
		"rest://u:hunter2@db/x":            "scheme other",
		"mysql://u:hunter2@db/x":           "scheme other",
		"rest+http://u:hunter2@api/users":  "password",
		"rest+https://api/users?hunter2":   "query",
		"http://:9080":                     "no host",
		"http://":                          "no host",
		"http://u:hunter2@auth:9080":       "password",
		"http://hunter2@auth:9080":         "password",
		"http://u:hunter2#x@auth:9080":     "not a URL",
		"http://u:12#hunter2@auth":         "fragment",
		"http://u:hunter 2@auth:9080":      "not a URL",
		"http://auth:9080/nova/hunter2":    "path",
		"http://auth:9080?token=hunter2":   "query",
		"http://auth:0":                    "port",
		"http://auth:":                     "ends with a colon and no port",
		"rest+http://auth:/users":          "ends with a colon and no port",
		"http://auth:70000":                "port",
		"http://auth:http":                 "not a URL",
		"u:hunter2@auth:9080":              "no scheme",
		"http://auth:9080\nhunter2: value": "not a URL",
	} {
		_, err := ParseURL(raw)
		if err == nil {
			t.Errorf("ParseURL(%q) passed", raw)
			continue
		}
		text := err.Error()
		if !strings.Contains(text, says) || !strings.Contains(text, "http://auth-service:9080") || strings.Contains(text, "\n") {
			t.Errorf("ParseURL(%q): %q, want it to say %q and to show an example", raw, text, says)
		}
		if strings.Contains(text, "hunter") {
			t.Errorf("ParseURL(%q) shows the password: %s", raw, text)
		}
	}
}
