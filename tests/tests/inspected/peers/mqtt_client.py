"""A client of the paho stack. Usage: VERSION SERVER TOPIC [AUTHORITY CERTIFICATE KEY]; publishes at QoS 1 and prints the
reason of the answer. With files in PEM it speaks TLS, and checks the server's name."""

import sys
import threading

import paho.mqtt.client as mqtt

version, server, topic, *pem = sys.argv[1:]
protocol = {"311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=protocol)
connected, answered = threading.Event(), threading.Event()
reasons = []


def on_publish(client, userdata, mid, reason, properties):
    reasons.append(str(reason))
    answered.set()


client.on_connect = lambda *arguments: connected.set()
client.on_publish = on_publish
if pem:
    authority, certificate, key = pem
    client.tls_set(ca_certs=authority, certfile=certificate, keyfile=key)
client.connect(server, 8883 if pem else 1883)
client.loop_start()
if not connected.wait(5):
    print("not connected")
    sys.exit()
client.publish(topic, b"7", qos=1)
print(reasons[0] if answered.wait(5) else "no answer")
