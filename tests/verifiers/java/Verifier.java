import com.nimbusds.jose.JOSEException;
import com.nimbusds.jose.JOSEObjectType;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.BadJOSEException;
import com.nimbusds.jose.proc.DefaultJOSEObjectTypeVerifier;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import com.nimbusds.oauth2.sdk.as.AuthorizationServerMetadata;
import com.nimbusds.oauth2.sdk.id.Issuer;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.text.ParseException;
import java.util.Set;
import java.util.concurrent.Executors;

/** A resource server that accepts internal tokens, fed by the issuer's metadata (RFC 8414) alone. */
public final class Verifier {
    static DefaultJWTProcessor<SecurityContext> create(String issuer, String audience) throws Exception {
        var metadata = AuthorizationServerMetadata.resolve(new Issuer(issuer));
        var keys = JWKSourceBuilder.create(metadata.getJWKSetURI().toURL())
                .cache(60_000, 2_000)
                .refreshAheadCache(20_000, true)
                .rateLimited(1_000)
                .build();
        var claims = new DefaultJWTClaimsVerifier<SecurityContext>(
                audience, new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("sub", "exp"));
        claims.setMaxClockSkew(5);
        var processor = new DefaultJWTProcessor<SecurityContext>();
        processor.setJWSTypeVerifier(new DefaultJOSEObjectTypeVerifier<>(new JOSEObjectType("at+jwt")));
        processor.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.ES256, keys));
        processor.setJWTClaimsSetVerifier(claims);
        return processor;
    }

    public static void main(String[] arguments) throws Exception {
        var processor = create(System.getenv("ISSUER"), System.getenv("AUDIENCE"));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 0);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.createContext("/", exchange -> {
            var header = exchange.getRequestHeaders().getFirst("authorization");
            try {
                var token = header != null && header.startsWith("Bearer ") ? header.substring(7) : "";
                answer(exchange, 200, processor.process(token, null).getSubject());
            } catch (ParseException | BadJOSEException | JOSEException refusal) {
                answer(exchange, 401, refusal.toString());
            }
        });
        server.start();
    }

    private static void answer(HttpExchange exchange, int status, String text) throws IOException {
        var body = text.getBytes(StandardCharsets.UTF_8);
        exchange.sendResponseHeaders(status, body.length == 0 ? -1 : body.length);
        try (var stream = exchange.getResponseBody()) {
            stream.write(body);
        }
    }
}
