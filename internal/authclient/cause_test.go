package authclient_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nova-social/orphan-cleaner/internal/authfake"
	"github.com/nova-social/orphan-cleaner/internal/source"
)

// pages is a server of web pages, or a proxy without anything behind it.
func pages(t *testing.T, status int, protocol string) (url string) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		fmt.Fprint(w, "<html><body>nothing here</body></html>")
	}))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(protocol == "http/1.1")
	server.Config.Protocols.SetUnencryptedHTTP2(protocol == "h2c")
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// Each cause is told once, in one line, with what to do about it.
func TestCauses(t *testing.T) {
	ca, dir := newCA(t), t.TempDir()
	caFile := write(t, dir+"/ca.pem", ca.PEM)
	otherCA := write(t, dir+"/other.pem", newCA(t).PEM)
	inTLS := func(name string, until time.Duration) *authfake.Server {
		return serve(t, authfake.Options{TLS: serverTLS(t, issue(t, ca, name, time.Now().Add(until)))})
	}
	good := inTLS("127.0.0.1", time.Hour)
	plain := serve(t, authfake.Options{})
	noH2 := serverTLS(t, issue(t, ca, "127.0.0.1", time.Now().Add(time.Hour)))
	noH2.NextProtos = []string{"http/1.1"}
	web := httptest.NewUnstartedServer(http.NotFoundHandler())
	web.TLS = noH2
	web.StartTLS()
	t.Cleanup(web.Close)
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	client := serverTLS(t, issue(t, ca, "127.0.0.1", time.Now().Add(time.Hour)))
	client.ClientAuth, client.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	for name, wrong := range map[string]struct {
		cfg  source.Config
		says []string
	}{
		"nobody listens":         {source.Config{URL: "http://" + nobody.Addr().String()}, []string{"connection refused", "nobody listens there"}},
		"TLS to plaintext":       {source.Config{URL: "https://" + plain.Addr(), CAFile: caFile}, []string{"speaks no TLS", "http:// in AUTH_SERVICE_URL"}},
		"plaintext to TLS":       {source.Config{URL: "http://" + good.Addr()}, []string{"speaks no plaintext HTTP/2", "https:// in AUTH_SERVICE_URL"}},
		"expired":                {source.Config{URL: inTLS("127.0.0.1", -time.Hour).URL(), CAFile: caFile}, []string{"certificate has expired", "renew"}},
		"wrong name":             {source.Config{URL: inTLS("other.host", time.Hour).URL(), CAFile: caFile}, []string{"127.0.0.1", "AUTH_SERVICE_SERVER_NAME"}},
		"another CA":             {source.Config{URL: good.URL(), CAFile: otherCA}, []string{"unknown authority", "AUTH_SERVICE_CA_FILE"}},
		"no client certificate":  {source.Config{URL: serve(t, authfake.Options{TLS: client}).URL(), CAFile: caFile}, []string{"AUTH_SERVICE_CERT_FILE"}},
		"HTTP/1":                 {source.Config{URL: pages(t, 404, "http/1.1")}, []string{"speaks no plaintext HTTP/2", "is the port right"}},
		"HTTP/1 in TLS":          {source.Config{URL: "https://" + web.Listener.Addr().String(), CAFile: caFile}, []string{"speaks no HTTP/2", "is the port right"}},
		"HTTP/2, 404, a page":    {source.Config{URL: pages(t, 404, "h2c")}, []string{"404", "no gRPC", "is the port right"}},
		"HTTP/2, 502, a page":    {source.Config{URL: pages(t, 502, "h2c")}, []string{"502", "no gRPC", "a proxy"}},
		"HTTP/2, 200, a page":    {source.Config{URL: pages(t, 200, "h2c")}, []string{"text/html", "no gRPC"}},
		"HTTP/2, 401, a page":    {source.Config{URL: pages(t, 401, "h2c")}, []string{"401", "no gRPC"}},
		"a name without address": {source.Config{URL: "http://auth-service.invalid:9080"}, []string{"DNS does not resolve the name auth-service.invalid"}},
	} {
		t.Run(name, func(t *testing.T) {
			wrong.cfg.MaxAttempts = 2
			client := dial(t, wrong.cfg)
			_, missing := client.Missing(t.Context(), people(2))
			_, health := client.Health(t.Context())
			for _, err := range []error{missing, health} {
				if err == nil {
					t.Fatal("no error")
				}
				for _, says := range wrong.says {
					if n := strings.Count(err.Error(), says); n == 0 {
						t.Errorf("%v: want it to say %q", err, says)
					}
				}
				if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "<html") || len(err.Error()) > 400 {
					t.Errorf("want one short line: %q", err)
				}
			}
		})
	}
}
